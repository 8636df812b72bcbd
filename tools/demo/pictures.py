"""Who draws the demo model's pictures: diffusers, a recipe with its passes applied, or a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.recipe.schema import Recipe

Pictures = Callable[[list[str], int], np.ndarray]
"""Draws prompts: (texts, seed) to uint8 (N, 64, 64, 3)."""

STEPS = 25
GUIDANCE = 3.0


@dataclass(frozen=True)
class Source:
    """Something that draws.

    Attributes:
        draw: The pictures of prompts; picture i of a call depends on seed + i alone.
        facts: What JSON says about it.

    """

    draw: Pictures
    facts: Mapping[str, Any] = field(default_factory=dict)


def draw_with(pipeline: Any, steps: int = STEPS, guidance: float = GUIDANCE, **more: object) -> Pictures:  # noqa: ANN401
    """Wraps a diffusers pipeline; its own guidance and further arguments go with every call."""
    import torch  # noqa: PLC0415 - a bundle draws without torch

    def pictures(prompts: list[str], seed: int) -> np.ndarray:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
        drawn = pipeline(
            prompts,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="np",
            **more,
        ).images
        return np.round(drawn * 255).astype(np.uint8)

    return pictures


@contextmanager
def from_diffusers(
    folder: Path,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    *,
    unet: Path | None = None,
    vae: Path | None = None,
    device: str = "cpu",
) -> Iterator[Source]:
    """Opens a pipeline's folder with diffusers, in float32, with other networks in place of its own where they are named."""
    import torch  # noqa: PLC0415 - a bundle draws without torch
    from diffusers import StableDiffusionXLPipeline  # noqa: PLC0415 - as above

    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    yield _source(pipeline, steps, guidance, unet, vae, device)


@contextmanager
def from_recipe(
    path: Path,
    assignments: Sequence[str] = (),
    steps: int | None = None,
    guidance: float | None = None,
    *,
    unet: Path | None = None,
    vae: Path | None = None,
    device: str = "cpu",
) -> Iterator[Source]:
    """Draws as a recipe says, with what its passes left in the store, at its first number of steps and its typical size.

    A cut is made where it is missing; a training is not.
    """
    from exporter.recipe.schema import Recipe  # noqa: PLC0415 - a bundle draws without the exporter

    recipe = Recipe.load(path, assignments)
    pipeline = made(recipe).reference().pipeline
    more = recipe.sampler.asked() | {"height": recipe.shapes.height[1], "width": recipe.shapes.width[1]}
    scale = recipe.sampler.guidance.scale if guidance is None else guidance
    # diffusers switches guidance off at 1.
    yield _source(pipeline, steps or recipe.sampler.steps[0], 1.0 if scale is None else scale, unet, vae, device, **more)


def made(recipe: Recipe) -> Family:
    """The recipe's family, with the networks that its passes made."""
    from exporter.stages.networks import family_of  # noqa: PLC0415
    from exporter.stages.plan import Plan  # noqa: PLC0415
    from exporter.stages.stage import Results  # noqa: PLC0415
    from exporter.stages.store import Store  # noqa: PLC0415 - as above

    plan, store = Plan(recipe), Store()
    if untrained := [stage.subject for stage in plan.networks.stages if stage.resumes and not store.peek(stage.key)]:
        raise click.ClickException(
            f"{untrained[0]}: not trained yet, or with other options; first: t2iexport distill {recipe.name}.yaml"
        )
    results = Results(store)
    return family_of(plan.family, {part: results[stage] for part, stage in plan.networks.last.items()})


def _source(
    pipeline: Any,  # noqa: ANN401 - diffusers'
    steps: int,
    guidance: float,
    unet: Path | None,
    vae: Path | None,
    device: str,
    **more: object,
) -> Source:
    import torch  # noqa: PLC0415 - a bundle draws without torch

    for name, folder in (("unet", unet), ("vae", vae)):
        if folder is not None:
            # Set, not registered: the pipeline would otherwise reckon its sizes anew from the other config.
            setattr(pipeline, name, network(folder))
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    networks = {"unet": pipeline.unet, "vae_decoder": pipeline.vae.decoder}
    facts = {
        "steps": steps,
        "guidance": guidance,
        "scheduler": type(pipeline.scheduler).__name__,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "parameters": {name: sum(value.numel() for value in each.parameters()) for name, each in networks.items()},
        **{name: str(folder) for name, folder in (("unet", unet), ("vae", vae)) if folder is not None},
    }
    return Source(draw_with(pipeline, steps, guidance, **more), facts)


def network(folder: Path) -> Any:  # noqa: ANN401 - a model of diffusers
    """A network's folder, opened by diffusers in float32."""
    import diffusers  # noqa: PLC0415 - a bundle draws without torch
    import torch  # noqa: PLC0415

    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    return getattr(diffusers, kind).from_pretrained(folder, torch_dtype=torch.float32).eval()


@contextmanager
def from_bundle(
    path: Path, steps: int | None = None, guidance: float | None = None, loras: Sequence[Path] = (), pag: float | None = None
) -> Iterator[Source]:
    """Opens an exported bundle with this project's runtime, as it comes or with other steps, scales, LoRAs; needs no torch."""
    from engines.pipeline import Pipeline  # noqa: PLC0415 - the recipe is scored without the runtime

    with Pipeline.open(path) as pipeline:

        def pictures(prompts: list[str], seed: int) -> np.ndarray:
            drawn = pipeline.generate(
                prompts, seed=seed, steps=steps, guidance_scale=guidance, pag_scale=pag, loras=[str(file) for file in loras]
            )
            return np.stack([np.asarray(image.convert("RGB")) for image in drawn])

        given = {"steps": steps, "guidance": guidance, "pag": pag}
        yield Source(pictures, {name: value for name, value in given.items() if value is not None})


def best_device() -> str:
    """`cuda` where there is one, else `cpu`."""
    import torch  # noqa: PLC0415 - a bundle draws without torch

    return "cuda" if torch.cuda.is_available() else "cpu"
