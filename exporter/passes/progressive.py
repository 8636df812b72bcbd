"""Progressive distillation (2202.00512): round by round, a step of the student learns to be several of its teacher's."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from exporter.recipe.purpose import ModelPurpose
from exporter.training.options import Classifier, Options

if TYPE_CHECKING:
    from exporter.part import Part
    from exporter.training.context import TrainingContext

__all__ = ["Progressive"]


class Progressive(Options):
    """Progressive distillation on noisy pictures; `steps` are those of one round.

    The teacher of the first round is the source, guided; that of every other the student of the round before. A round of as many
    steps as its teacher takes, such as the first of [25, 25], folds guidance in or changes the prediction, and no more.
    """

    grid: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        default=(32, 16, 8, 4), min_length=2, description="DDIM steps of the first teacher, then of each round's student"
    )
    guidance: float | None = Field(default=None, ge=1, description="of the first teacher; null asks it without")
    weighting: Literal["truncated_snr", "snr_plus_one", "none"] = Field(
        default="truncated_snr", description="of the squared error of the clean latent, by time"
    )
    prediction: Literal["epsilon", "v_prediction", "sample"] | None = Field(
        default=None, description="what the student says, for sampler.config.prediction_type; null is what the teacher says"
    )

    classifier: Classifier | None = Field(
        default=None, description="compare pictures by a frozen classifier's features in the last rounds, instead of latents"
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        for before, after in pairwise(self.grid):
            if before % after:
                raise ValueError(f"grid: {before} is not a multiple of {after}; a student's times must be among its teacher's")
        if self.classifier and self.classifier.rounds >= len(self.grid):
            raise ValueError(f"classifier.rounds: {self.classifier.rounds}, but this grid has {len(self.grid) - 1}")
        return self

    @property
    def purpose(self) -> ModelPurpose:
        """So many steps, trailing, without guidance where that was folded in."""
        return ModelPurpose("few_step", f"the pass {self.verb}", self.grid[-1], self.prediction or "")

    @property
    def guides(self) -> bool:
        """Where guidance is folded in."""
        return self.guidance is not None

    @property
    def sees(self) -> Classifier | None:
        """The classifier of the last rounds."""
        return self.classifier

    @property
    def summary(self) -> str:
        """The pass, its rounds, and how long each is."""
        rounds = " → ".join(map(str, self.grid))
        guided = "" if self.guidance is None else f", guidance {self.guidance:g}"
        return f"progressive: {rounds} steps{guided}, {self.steps} steps of training a round"

    def teach(self, student: Part, lesson: TrainingContext) -> Part:
        """Train the student's network round by round, from the last checkpoint where there is one.

        Raises:
            UnsupportedError, DivergenceError, MissingDependency: as for `distill`.

        """
        from exporter.training.objectives.progressive import rounds  # noqa: PLC0415 - torch

        return rounds(self, student, lesson)
