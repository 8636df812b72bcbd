"""What the user decides: the recipe's schema, its defaults, and every problem at once with file and line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PrivateAttr,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
)

from engines import plugins
from engines.errors import MissingDependency, RecipeError
from engines.manifest import Generator, Tile
from engines.strict import Frozen
from exporter.recipe import shipped
from exporter.recipe.ip_adapter import IpAdapterOptions
from exporter.recipe.limits import LIMITS
from exporter.recipe.lora import LoraSlots
from exporter.recipe.messages import UNKNOWN, sentences
from exporter.recipe.prompts import AnEmbedding, Prompts
from exporter.recipe.quality import QualityFloor
from exporter.recipe.sampling import GuidanceOptions as GuidanceOptions  # noqa: PLC0414 - of a recipe's schema
from exporter.recipe.sampling import SamplerOptions
from exporter.recipe.yaml_source import Document, Place, brief, one_form

#: Kind of plugin → what a message calls one.
WORDS = {"backends": "backend", "passes": "pass"}
#: Ways of distilling, each with the sampler that belongs to it: the keys of pairings.json.
MadeFor = Literal["turbo", "sdxs", "koala_lightning", "lightning", "lcm", "lcm_lora", "lcm_fixed", "tcd", "few_step", "rectified"]
Length = Annotated[int, Field(ge=1, le=2**15)]
Text = Annotated[str, StringConstraints(min_length=1)]


def _rising(triple: tuple[int, int, int]) -> tuple[int, int, int]:
    if list(triple) != sorted(triple):
        raise ValueError(f"{list(triple)} must rise: smallest, typical, largest; sorted it is {sorted(triple)}")
    return triple


#: A bound must be positive, whatever it is of. The tags are no part of a place in the recipe.
Bound = Annotated[float, Field(gt=0)]
Limit = Annotated[
    Annotated[Bound, Tag("|number")] | Annotated[dict[Text, Bound], Tag("|mapping")],
    Discriminator(lambda value: "|mapping" if isinstance(value, dict) else "|number"),
]
Triple = Annotated[tuple[Length, Length, Length], AfterValidator(_rising)]


class LoraOptions(Frozen):
    """A change of the weights, fused in at build time."""

    source: Text = Field(description="a .safetensors file, a folder with one, or a hub id")
    scale: float = Field(default=1.0, description="by which its change of the weights is multiplied")
    weight_name: Text | None = Field(default=None, description="which file, where source has several")
    revision: str | None = Field(default=None, description="hub revision; the resolved commit goes into the bundle")


class ModelOptions(Frozen):
    """Where the networks come from."""

    source: Text = Field(description="hub id, diffusers folder, single .safetensors file, or an architecture's name")
    weights: Literal["pretrained", "random"] = "pretrained"
    seed: int = Field(default=0, ge=0, description="seed of random weights")
    revision: str | None = Field(default=None, description="hub revision; the resolved commit goes into the bundle")
    variant: Text | None = Field(default=None, description="of the weights, such as fp16, where source has several")
    architecture: str | None = Field(default=None, description="configuration for a single file that does not tell its own")
    base: Text | None = Field(
        default=None,
        description="where the rest comes from, if source is a UNet or ControlNet alone, or a file without all of it; as source",
    )
    vae: Text | None = Field(
        default=None, description="another VAE than source's, or for a file without: a folder, a hub id, or a .safetensors file"
    )
    loras: tuple[LoraOptions, ...] = Field(default=(), description="fused into UNet and text encoders, in this order")
    embeddings: tuple[AnEmbedding, ...] = Field(
        default=(), description="textual inversions, whose words prompts can use: .safetensors files by name, or with a word"
    )
    ip_adapter: IpAdapterOptions | None = Field(
        default=None, description="pictures as prompts, for Stable Diffusion and SDXL, as load_ip_adapter of diffusers takes it"
    )
    made_for: MadeFor | None = Field(
        default=None, description="how the model was distilled, where its files do not tell; decides which samplers suit it"
    )
    call: dict[Text, Any] = Field(
        default_factory=dict,
        description="arguments of the call of diffusers' pipeline, compiled in, such as control_mode: [3]; not of sd and sdxl",
    )
    pictures: dict[Text, Annotated[int, Field(ge=1, le=8)]] = Field(
        default_factory=dict,
        description="how many pictures an argument of that call is a list of, such as image: 2; not of sd and sdxl",
    )


class Shapes(Frozen):
    """Smallest, typical and largest picture, in pixels, and batch.

    Sides are multiples of 8, as in diffusers. Where the UNet cannot halve them evenly in each of its stages (in SD and SDXL those
    that are no multiples of 64) it rounds up, as diffusers has it do. The bundle takes sizes in the largest step, up to what
    the UNet halves evenly, that the three are multiples of.
    """

    height: Triple
    width: Triple
    batch: Triple = (1, 1, 4)


class Component(Frozen):
    """One network's precision, passes and, where it differs from the others', target."""

    precision: Literal["fp32", "fp16", "bf16", "mixed", "auto"] = Field(
        default="fp32",
        description="of weights and arithmetic; mixed: fp16, but fp32 where the recording shows values too large for that; "
        "auto: fp16 or mixed where values allow it and a target is a GPU, else fp32",
    )
    passes: tuple[dict[str, dict[str, Any]], ...] = ()
    target: dict[str, dict[str, Any]] | None = Field(
        default=None, description="its only backend, instead of the targets: openvino, or {openvino: {precision: bf16}}"
    )
    tile: Tile | None = Field(
        default=None, description="of vae_decoder: no larger latent is decoded at once; a larger one tile by tile, blended"
    )
    lora: LoraSlots | None = Field(default=None, description="LoRAs that are chosen for each picture, as inputs of the network")


class FasterThan(Frozen):
    """How fast the bundle must be on the machine that builds it."""

    against: Text = Field(
        description="diffusers, diffusers-bf16, diffusers-compile, another backend of the bundle, or the folder of another bundle"
    )
    ratio: float = Field(default=1.0, gt=0, description="how many times as fast the bundle must be at least")


class Checks(Frozen):
    """Parity against the source model, and speed."""

    prompts: tuple[Text, ...] = Field(
        default=("a photo of an astronaut riding a horse on mars", "a small red boat on a calm lake at dawn"), min_length=1
    )
    negative_prompt: str | None = None
    seed: int = Field(default=0, ge=0)
    skip: Text | None = Field(default=None, description="a reason to build without checking; it goes into the bundle")
    limits: dict[str, Limit] = Field(
        default_factory=dict,
        description="PSNR floors in dB: of a stage (engine: 35) or a stage of one part (unet.engine: 35); "
        "a mapping names other metrics instead (image: {ssim: 0.9})",
    )
    faster_than: FasterThan | None = Field(
        default=None, description="measured after the check; a bundle that is slower is not published"
    )
    quality: dict[Text, QualityFloor] = Field(
        default_factory=dict,
        description="score (a metric, a plugin, a Python file) → what it must reach after the check, else nothing is published",
    )

    @field_validator("limits")
    @classmethod
    def _stages(cls, limits: dict[str, Limit]) -> dict[str, Limit]:
        for name in limits:
            if (stage := name.rpartition(".")[2]) not in LIMITS:
                raise ValueError(f"{name!r} names no stage{plugins.did_you_mean(stage, list(LIMITS))}")
        return limits


@dataclass(frozen=True)
class Origin:
    """Where a recipe came from; two recipes of one name, folder and text are equal wherever their lines stood."""

    name: str = "recipe"
    root: Path = Path()
    text: str = ""
    document: Document | None = field(default=None, compare=False, repr=False)


class Recipe(Frozen):
    """One bundle: model, sampler, shapes, components, targets, checks."""

    model: ModelOptions
    sampler: SamplerOptions
    prompts: Prompts = Prompts()
    shapes: Shapes
    components: dict[str, Component] = Field(default_factory=dict)
    targets: tuple[dict[str, dict[str, Any]], ...] = Field(default=({"onnxruntime": {}},), min_length=1)
    pipeline: Literal["stepped", "fused"] = Field(
        default="stepped", description="fused: one engine call from prompt to picture, at one size and batch"
    )
    generator: Generator = Field(
        default="numpy", description="whose noise a seed is by default; torch-cpu, torch-cuda: as in diffusers"
    )
    low_memory: bool = Field(
        default=False, description="one network in memory at a time: each opens for its stage of a picture, and closes after it"
    )
    checks: Checks = Checks()
    _origin: Origin = PrivateAttr(default_factory=Origin)

    @property
    def name(self) -> str:
        """The file's name without its suffix; the bundle's default name."""
        return self._origin.name

    @property
    def root(self) -> Path:
        """The file's folder, from which relative sources count."""
        return self._origin.root

    @property
    def text(self) -> str:
        """YAML that parses to this recipe, overrides included; what the bundle keeps."""
        return self._origin.text

    def component(self, name: str) -> Component:
        """What is asked of a part; the defaults where the recipe does not name it."""
        return self.components.get(name, Component())

    @staticmethod
    def load(path: Path, overrides: Iterable[str] = ()) -> Recipe:
        """Read a recipe's file, or one that comes with the package by its bare name; `overrides` are `path.to.field=yaml value`.

        Raises:
            RecipeError: there is none, or every problem of file and overrides at once.
            MissingDependency: ruamel.yaml is absent.

        """
        file = shipped.find(path)
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{file}  is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
        return Recipe.parse(text, file.stem, file.parent, overrides=overrides, shown=str(file))

    @staticmethod
    def parse(  # pyright: ignore[reportIncompatibleMethodOverride] - a recipe is YAML, and no bundle's JSON
        text: str, name: str, root: Path = Path(), *, overrides: Iterable[str] = (), shown: str = ""
    ) -> Recipe:
        """Read a recipe's text, such as the one that a bundle keeps; `shown` stands for the file in messages.

        Raises:
            RecipeError: every problem at once.

        """
        document = Document(text, shown or f"{name}.yaml")
        if document.problems and not document.data:
            raise RecipeError(document.problems)
        _unify(document.data)
        given = tuple(overrides)
        for assignment in given:
            document.override(assignment)
        _unify(document.data)
        _check_plugins(document)
        try:
            # As strict JSON, because there `steps: ["10"]` is an error and a list is a tuple.
            recipe = Recipe.model_validate_json(json.dumps(document.data), strict=True)
        except ValidationError as error:
            recipe = None
            for place, sentence in sentences(Recipe, error):
                document.report(place, sentence, named=sentence.startswith(UNKNOWN))
        if recipe is None or document.problems:
            raise RecipeError(document.problems)
        kept = document.text(f"{document.shown} with {' '.join(f'--set {each}' for each in given)}") if given else text
        recipe._origin = Origin(name, root, kept, document)  # noqa: SLF001 - its own class
        return recipe

    def changed(self, *overrides: str) -> Recipe:
        """The same recipe with changes, `path.to.field=yaml value`, which its text says."""
        return Recipe.parse(self.text, self.name, self.root, overrides=overrides)

    def located(self, problems: Sequence[str]) -> list[str]:
        """Put file and line before problems that begin with a dotted path, as a family or a source reports them."""
        return [self._located(problem) for problem in problems]

    def _located(self, problem: str) -> str:
        path, colon, sentence = problem.partition(": ")
        place: Place = tuple(int(step) if step.isdigit() else step for step in path.replace("[", ".").replace("]", "").split("."))
        if self._origin.document is None or not colon or place[0] not in type(self).model_fields:
            return problem
        return self._origin.document.problem(place, sentence)


#: Where a plugin is named: what holds it, under which key, its place, and its kind.
Slot = tuple[Any, Any, Place, str]


def _slots(data: Any) -> Iterator[Slot]:  # noqa: ANN401 - unchecked YAML
    if not isinstance(data, dict):
        return
    if isinstance(data.get("targets"), list):
        yield from ((data["targets"], index, ("targets", index), "backends") for index in range(len(data["targets"])))
    components = data.get("components")
    for part, component in components.items() if isinstance(components, dict) else ():
        here = ("components", part)
        if isinstance(component, dict) and isinstance(component.get("passes"), list):
            for index in range(len(component["passes"])):
                yield component["passes"], index, (*here, "passes", index), "passes"
        if isinstance(component, dict) and component.get("target") is not None:
            yield component, "target", (*here, "target"), "backends"


def _unify(data: Any) -> None:  # noqa: ANN401
    for holder, key, _, _ in _slots(data):
        holder[key] = one_form(holder[key])


def _check_plugins(document: Document) -> None:
    """Report what is wrong with the names and options of backends and passes, and leave it out of the data."""
    seen: set[str] = set()
    for holder, key, place, kind in _slots(document.data):
        entry = holder[key]
        if not isinstance(entry, dict) or len(entry) != 1:
            told = f"has {len(entry)} names" if isinstance(entry, dict) else f"is {brief(entry)}"
            word, (dash, end) = WORDS[kind], ("- ", ", one each") if isinstance(key, int) else ("", "")
            document.report(place, f"{told}; write '{dash}{word}' or '{dash}{word}: {{option: value}}'{end}")
            holder[key] = {}
            continue
        ((name, options),) = entry.items()
        for where, sentence in _options(kind, place, name, options):
            document.report(where, sentence, named=sentence.startswith(UNKNOWN))
        if not isinstance(options, dict):
            holder[key] = {name: {}}
        if place[0] == "targets":
            if name in seen:
                document.report(place, f"{name!r} is named twice; keep one, with all its options")
            seen.add(name)


def _options(kind: str, place: Place, name: str, options: Any) -> Iterator[tuple[Place, str]]:  # noqa: ANN401
    known = plugins.names(kind)
    if name not in known:
        hint = plugins.did_you_mean(name, known) if known else "; there are none yet"
        yield place, f"unknown {WORDS[kind]} {name!r}{hint}"
        return
    if not isinstance(options, dict):
        yield (*place, name), f"must be a mapping of options, not {brief(options)}"
        return
    try:
        chosen = plugins.load(kind, name)
    except MissingDependency:
        return  # its options are checked where it is installed; building says what to install
    try:
        chosen.model_validate(options)
    except ValidationError as error:
        yield from (((*place, name, *inner), sentence) for inner, sentence in sentences(chosen, error))
