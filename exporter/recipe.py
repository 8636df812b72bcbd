"""What the user decides: the recipe's schema, its defaults, and every problem at once with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from engines.frozen import Frozen

Triple = tuple[int, int, int]


class Model(Frozen):
    """Where the networks come from."""

    source: str = Field(description="hub id, diffusers folder, single .safetensors file, or an architecture's name")
    weights: Literal["pretrained", "random"] = "pretrained"
    seed: int = Field(default=0, description="seed of random weights")
    revision: str | None = Field(default=None, description="hub revision; the resolved commit goes into the bundle")
    architecture: str | None = Field(default=None, description="configuration for a single file that does not tell its own")


class Guidance(Frozen):
    """How the prompt steers."""

    mode: Literal["none", "classifier_free", "embedded"] = "none"
    scale: float | None = Field(default=None, description="default of the run-time input; null where mode is none")


class Sampler(Frozen):
    """diffusers' scheduler, compiled into tables."""

    scheduler: str | None = Field(default=None, description="class name in diffusers; null takes the model's own")
    config: dict[str, Any] = Field(default_factory=dict, description="changes to the model's own scheduler config")
    steps: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(min_length=1, description="one table each; the first is the default")
    step: dict[str, float] = Field(default_factory=dict, description="arguments of scheduler.step, such as eta")
    timesteps: tuple[int, ...] | None = Field(default=None, description="own time grid, instead of the scheduler's")
    guidance: Guidance = Guidance()


class Shapes(Frozen):
    """Smallest, typical and largest picture, in pixels, and batch."""

    height: Triple
    width: Triple
    batch: Triple = (1, 1, 4)


class Component(Frozen):
    """One network's precision and passes."""

    precision: Literal["fp32", "fp16", "bf16", "auto"] = "fp32"
    passes: tuple[dict[str, dict[str, Any]], ...] = ()


class Checks(Frozen):
    """Parity against the source model."""

    prompts: tuple[str, ...] = ("a photo of an astronaut riding a horse on mars", "a small red boat on a calm lake at dawn")
    negative_prompt: str | None = None
    seed: int = 0
    skip: str | None = Field(default=None, description="a reason to build without checking; it goes into the bundle")
    limits: dict[str, float] = Field(default_factory=dict, description="PSNR floors in dB, by line of the blame table")


class Recipe(Frozen):
    """One bundle: model, sampler, shapes, components, targets, checks."""

    model: Model
    sampler: Sampler
    shapes: Shapes
    components: dict[str, Component] = Field(default_factory=dict)
    targets: tuple[dict[str, dict[str, Any]], ...] = ({"onnxruntime": {}},)
    checks: Checks = Checks()

    @staticmethod
    def load(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
        """Read a recipe; `overrides` are `path.to.field=yaml value`."""
        raise NotImplementedError
