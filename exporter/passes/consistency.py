"""Latent consistency distillation (LCM, 2310.04378): from any timestep straight to x0, guidance as an input or in the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from exporter.pruning.blocks import require_unet
from exporter.recipe.purpose import ModelPurpose
from exporter.training.options import Options

if TYPE_CHECKING:
    from exporter.part import Part
    from exporter.training.context import TrainingContext

__all__ = ["Consistency"]

Scale = Annotated[float, Field(ge=1)]


class Consistency(Options):
    """Learn to say the same picture from every time along the teacher's guided trajectory; played by LCMScheduler.

    A range of guidance becomes an input of the network (`time_cond_proj_dim`), which sampler.guidance: {mode: embedded} feeds;
    one number goes into the weights, for mode: none. Either way a step is one call with one prompt.
    """

    guidance: Scale | tuple[Scale, Scale] = Field(
        default=(3.0, 15.0), description="scale that is folded in, or the range [least, most] from which each picture draws one"
    )
    width: int = Field(default=256, ge=2, description="of the embedding of guidance, where that is an input")
    solver_steps: int = Field(default=50, ge=1, le=1000, description="DDIM steps of the teacher, of which the student sees one")
    huber: float = Field(default=0.001, gt=0, description="error at which the loss turns from squared to absolute")
    target: float = Field(default=0.95, ge=0, lt=1, description="decay of the average that the student shall be consistent with")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if isinstance(self.guidance, tuple) and self.guidance[0] > self.guidance[1]:
            raise ValueError(f"guidance: {list(self.guidance)} must rise; sorted it is {sorted(self.guidance)}")
        return self

    @property
    def embeds(self) -> bool:
        """Whether guidance becomes an input."""
        return isinstance(self.guidance, tuple)

    @property
    def purpose(self) -> ModelPurpose:
        """LCM's sampler, with guidance as an input or without."""
        return ModelPurpose("lcm" if self.embeds else "lcm_fixed", f"the pass {self.verb}")

    @property
    def guides(self) -> bool:
        """It is."""
        return True

    @property
    def summary(self) -> str:
        """The pass, its guidance and how long."""
        scale = "–".join(f"{each:g}" for each in (self.guidance if isinstance(self.guidance, tuple) else [self.guidance]))
        return f"consistency: guidance {scale}, {self.steps} steps of training"

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same config, with an input for guidance where that is a range.

        Raises:
            UnsupportedError: the network takes guidance as an input already, or is of a class that has none.

        """
        if self.embeds:
            require_unet(source, "consistency.guidance: a range")
        return {**super().config(source), **({"time_cond_proj_dim": self.width} if self.embeds else {})}

    def teach(self, student: Part, lesson: TrainingContext) -> Part:
        """Train the student's network, from the last checkpoint where there is one.

        Raises:
            UnsupportedError, DivergenceError, MissingDependency: as for `distill`.

        """
        from exporter.training.objectives.consistency import ConsistencyObjective, steered  # noqa: PLC0415 - torch
        from exporter.training.trainer import teach  # noqa: PLC0415 - torch

        student = steered(self, student)
        return teach(self, student, lesson, ConsistencyObjective(self, student, lesson))
