"""Few steps without guidance: each step of the student covers a stretch of the teacher's own guided trajectory."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from engines.strict import Frozen
from exporter.recipe.purpose import ModelPurpose
from exporter.training.options import Played, Weight

if TYPE_CHECKING:
    from exporter.part import Part
    from exporter.training.context import TrainingContext

__all__ = ["Trajectory"]


class TrajectoryWeights(Frozen):
    """By which each loss counts."""

    step: Weight = Field(default=1.0, description="each step from where the teacher was, against where the teacher then was")
    end: Weight = Field(default=0.0, description="the end of the student's own steps from the noise, against the teacher's end")


class Trajectory(Played):
    """Learn to go in a few DDIM steps where the teacher, guided, went in many; guidance is in the weights afterwards.

    The teacher's trajectories are played once, from noise and captions. No picture is needed but for the captions' sake.
    """

    to: int = Field(default=4, ge=1, description="steps of the student")
    leaps: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        default=None,
        min_length=1,
        description="teacher's steps that each step of the student spans, first to last, for sampler.timesteps; null: all alike",
    )
    weights: TrajectoryWeights = TrajectoryWeights()
    weighting: Literal["truncated_snr", "snr_plus_one", "none"] = Field(
        default="truncated_snr", description="of a step's squared error of the clean latent, by time, as in progressive"
    )
    prediction: Literal["epsilon", "v_prediction", "sample"] | None = Field(
        default=None, description="what the student says, for sampler.config.prediction_type; null is what the teacher says"
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.leaps and (len(self.leaps), sum(self.leaps)) != (self.to, self.teacher_steps):
            raise ValueError(
                f"leaps {list(self.leaps)} are {len(self.leaps)} steps over {sum(self.leaps)}, and not to {self.to} over "
                f"teacher_steps {self.teacher_steps}"
            )
        if not self.leaps and self.teacher_steps % self.to:
            raise ValueError(f"teacher_steps {self.teacher_steps} is not a multiple of to {self.to}, whose times it must hold")
        return self

    @property
    def stops(self) -> tuple[int, ...]:
        """Where each step of the student arrives."""
        return tuple(accumulate(self.leaps or [self.teacher_steps // self.to] * self.to))

    @property
    def purpose(self) -> ModelPurpose:
        """So many steps, trailing or at times of their own, without guidance."""
        made = ModelPurpose("few_step", f"the pass {self.verb}", self.to, self.prediction or "")
        return replace(made, starts=(self.teacher_steps, (0, *self.stops[:-1]))) if self.leaps else made

    @property
    def summary(self) -> str:
        """The pass, from how many steps to how many, and how long."""
        leaps = " in leaps of " + ", ".join(map(str, self.leaps)) if self.leaps else ""
        grid = f"{self.teacher_steps} → {self.to} steps{leaps}"
        return f"trajectory: {grid}, guidance {self.guidance:g}, {self.steps} steps of training"

    def teach(self, student: Part, lesson: TrainingContext) -> Part:
        """Train the student's network, from the last checkpoint where there is one.

        Raises:
            UnsupportedError, DivergenceError, MissingDependency: as for `distill`.

        """
        from exporter.training.objectives.trajectory import TrajectoryObjective  # noqa: PLC0415 - torch
        from exporter.training.trainer import teach  # noqa: PLC0415 - torch

        return teach(self, student, lesson, TrajectoryObjective(self, lesson))
