"""Reflow (2209.03003): learn the teacher's own pairs of noise and image, so that trajectories become straight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from exporter.recipe.purpose import ModelPurpose
from exporter.training.options import Played

if TYPE_CHECKING:
    from exporter.part import Part
    from exporter.training.context import TrainingContext

__all__ = ["Reflow"]


class Reflow(Played):
    """Learn, at every time, the noise that a picture really came from (reflow, arXiv 2209.03003), along the model's own schedule.

    A rectified flow needs no other time and no other scheduler than the model has (Rectified Diffusion, arXiv 2410.07303): on the
    schedule, a trajectory whose noise does not change is one DDIM step. `trajectory: {to: 1}` behind it learns that one step.
    """

    prediction: Literal["epsilon", "v_prediction", "sample"] | None = Field(
        default=None, description="what the student says, for sampler.config.prediction_type; null is what the teacher says"
    )

    @property
    def purpose(self) -> ModelPurpose:
        """Few steps, without guidance."""
        return ModelPurpose("rectified", f"the pass {self.verb}", None, self.prediction or "")

    @property
    def summary(self) -> str:
        """The pass and how long."""
        return f"reflow: {self.count} pairs, guidance {self.guidance:g}, {self.steps} steps of training"

    def teach(self, student: Part, lesson: TrainingContext) -> Part:
        """Train the student's network, from the last checkpoint where there is one.

        Raises:
            UnsupportedError, DivergenceError, MissingDependency: as for `distill`.

        """
        from exporter.training.objectives.reflow import ReflowObjective  # noqa: PLC0415 - torch
        from exporter.training.trainer import teach  # noqa: PLC0415 - torch

        return teach(self, student, lesson, ReflowObjective(self, lesson))
