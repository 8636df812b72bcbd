"""What a pass that trains is given: the teacher, and pictures and captions as the networks see them, encoded once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import MachineError
from exporter.models import locate
from exporter.recipe.schema import Component, GuidanceOptions, Recipe
from exporter.training import captioned_images, hf_datasets

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.models.checkpoint import Checkpoint
    from exporter.part import Part
    from exporter.training.options import Options

#: Captions, and at most so many pictures, per call of an encoder; of large pictures as many as have so many pixels.
_BATCH, _PIXELS = 256, 32 * 512 * 512
LATENTS = "latents.npy"


@dataclass(frozen=True)
class TrainingContext:
    """One training's material.

    Attributes:
        teacher: the source's part, without guidance: latent, timestep, conditioning (batch, 1, …) → output.
        schedule: the model's scheduler config.
        encoded: folder of `latents.npy` (count, C, H, W), and per conditioning port an array (1 + count, …) whose first entry is
            the empty prompt's; float16.
        ports: the conditioning's names, in the order in which the denoiser takes them.
        moved: prefix of a module in the student → prefix in the source, where they differ.
        kept: folder that survives a kill.
        say: prints a line of progress.
        played: folder of the teacher's trajectories, where the pass learns from such.
        sight: the classifier and the decoder of what it looks at, where the pass has such.

    """

    teacher: Part
    schedule: Mapping[str, Any]
    encoded: Path
    ports: tuple[str, ...]
    moved: Mapping[str, str]
    kept: Path
    say: Callable[[str], None]
    played: Path | None = None
    sight: tuple[Checkpoint, Part] | None = None


def found(step: Options, recipe: Recipe, where: str) -> list[captioned_images.CaptionedImage]:
    """The pictures that a pass names, looked for beside the recipe, then in the working directory.

    Raises:
        RecipeError: there are none, or they and their captions do not belong together.
        MissingDependency: they are a data set's, and its library is not installed.

    """
    if not isinstance(step.data, str):
        return hf_datasets.pictures(step.data, recipe.root, f"{where}.data")
    places = locate.candidates(step.data, recipe.root)
    return captioned_images.pictures(locate.first(places, captioned_images.there) or places[-1], f"{where}.data")


def options(step: Options, recipe: Recipe) -> dict[str, Any]:
    """What the encoded pictures depend on besides the networks: size, and what an empty prompt becomes."""
    guidance = "classifier_free" if step.guides else recipe.sampler.guidance.mode
    return {"size": [recipe.shapes.height[1], recipe.shapes.width[1]], "guidance": guidance}


def steered(step: Options, family: Family) -> Family:
    """The family whose text encoders make the empty prompt what it is under guidance, where the teacher is asked so."""
    recipe = family.recipe
    if not step.guides or recipe.sampler.guidance.mode == "classifier_free":
        return family
    sampler = recipe.sampler.model_copy(update={"guidance": GuidanceOptions(mode="classifier_free", scale=1.0), "cache": None})
    made = recipe.model_copy(update={"sampler": sampler, "components": {}})
    return family.replacing(recipe=made)


def plain(family: Family, checkpoint: Checkpoint) -> Family:
    """The family without guidance, whose denoiser takes one prompt per picture, and with a picture encoder."""
    recipe = family.recipe
    sampler = recipe.sampler.model_copy(update={"guidance": GuidanceOptions(), "cache": None})
    made = recipe.model_copy(update={"sampler": sampler, "components": {family.image_encoder: Component()}})
    return family.replacing(checkpoint=checkpoint, recipe=made)


def encode(family: Family, recipe: Recipe, pictures: list[captioned_images.CaptionedImage], folder: Path, *, texts: bool) -> None:
    """Write the latents of pictures (scaled to cover the recipe's typical size, cut at the centre), and their captions' states.

    Each picture's latent is drawn once from the encoder's distribution. An empty prompt becomes what it becomes in generation.

    Raises:
        MachineError: too little room on the disk.

    """
    from exporter.training import encode  # noqa: PLC0415 - torch

    height, width = (getattr(recipe.shapes, side)[1] for side in ("height", "width"))
    encoder = plain(family, family.checkpoint)
    signature = encoder.signature(encoder.image_encoder)
    extent = {**signature.extent("typical"), "batch": 1}
    per_picture = int(np.prod(signature.shape(signature.outputs[0], extent)))
    for tower in family.towers if texts else ():
        signature = family.signature(tower)
        per_picture += sum(int(np.prod(signature.shape(port, {"batch": 1})[2:])) for port in signature.outputs)
    needed, free = 2 * per_picture * (len(pictures) + 1), shutil.disk_usage(folder).free
    if needed > free:
        raise MachineError(
            f"data: {len(pictures):,} encoded pictures and captions take {needed / 1e9:.1f} GB, and the disk of {folder} "
            f"has {free / 1e9:.1f} GB.\n  Take fewer, or set XDG_CACHE_HOME to a larger disk."
        )
    if texts:
        encode.captions(family, [picture.caption for picture in pictures], folder, _BATCH)
    batch = min(_BATCH, max(1, _PIXELS // (height * width)))
    encode.latents(encoder, pictures, (height, width), folder / LATENTS, batch)


def came(steps: Mapping[str, Any], source: Mapping[str, Any], metadata: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Where the modules of the network that passes made stood in the source; `metadata` are what each of them found out."""
    for name, found in metadata.items():
        if moved := steps[name].moved(source, found.get(name, {})):
            return dict(moved)
    return {}


def keyed(
    step: Options, recipe: Recipe, checkpoint: Checkpoint, where: str, *, texts: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Options and inputs of the stage that encodes.

    Raises:
        RecipeError: as for `found`.

    """
    kinds = ("vae", "text_encoder", "tokenizer") if texts else ("vae",)
    components = sorted(name for name in checkpoint.configs if name.startswith(kinds))
    inputs = {name: checkpoint.digest(name) for name in components}
    read = recipe.model_dump(mode="json", include={"prompts"}) if texts else {}
    return options(step, recipe) | read, inputs | {"pictures": captioned_images.digest(found(step, recipe, where))}


def options_of(step: Options) -> dict[str, Any]:
    """What a pass's result depends on: not how often it is saved, nor who watches."""
    return step.model_dump(mode="json", exclude={"checkpoint_every", "log_with", "data"})
