"""What stands before it learns from the source: task, output and feature loss, as BK-SDM and KOALA do; runs on accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints

from engines.errors import UnsupportedError
from engines.frozen import Frozen
from exporter.passes._cut import whole

if TYPE_CHECKING:
    from exporter.lesson import Lesson
    from exporter.part import Part

__all__ = ["Distill"]

Weight = Annotated[float, Field(ge=0)]


class Weights(Frozen):
    """By which each loss counts; all are mean squared errors in float32."""

    task: Weight = Field(default=1.0, description="student's output against the noise, velocity or sample that was put in")
    output: Weight = Field(default=1.0, description="student's output against the teacher's")
    feature: Weight = Field(default=1.0, description="features against the teacher's, summed over the modules")


class Distill(Frozen):
    """Train the network that the passes before have made, on what the source does."""

    data: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="folder of pictures with captions: a .txt beside each picture, or a metadata.jsonl"
    )
    steps: int = Field(ge=1, description="of the optimizer")
    batch: int = Field(default=8, ge=1, description="pictures per process and pass")
    accumulate: int = Field(default=1, ge=1, description="passes per step")
    learning_rate: float = Field(default=5e-5, gt=0)
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="of the learning rate, after the warm-up")
    warmup: int = Field(default=0, ge=0, description="steps over which the learning rate rises")
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    weights: Weights = Weights()
    features: Literal["last_of_stage", "self_attention", "cross_attention", "resnet", "feed_forward"] | None = Field(
        default="self_attention", description="what the feature loss compares: BK-SDM last_of_stage, KOALA self_attention"
    )
    empty: float = Field(default=0.1, ge=0, le=1, description="share of captions left empty, which guidance needs")
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="decay of the weights' moving average, which becomes the result"
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = Field(default=False, description="less memory, more time")
    teacher: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None, description="another model of the same kind to learn from, as model.source names it"
    )
    seed: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=500, ge=1, description="steps; a killed training goes on from the last one")
    log_with: Literal["tensorboard"] | None = Field(default=None, description="accelerate's tracker that gets the losses too")

    @property
    def remakes(self) -> bool:
        """It makes another network."""
        return True

    @property
    def trains(self) -> bool:
        """It does."""
        return True

    @property
    def recorded(self) -> bool:
        """It sees pictures of its own."""
        return False

    @property
    def told(self) -> str:
        """The pass, how long, and from which features."""
        return f"distill: {self.steps} steps, {self.features or 'no features'}"

    @property
    def watched(self) -> bool:
        """Whether features are compared at all."""
        return self.features is not None and self.weights.feature > 0

    def moved(self, _source: Mapping[str, Any], _findings: Mapping[str, Any]) -> Mapping[str, str]:
        """Every module stays where it is."""
        return {}

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same config.

        Raises:
            UnsupportedError: the network has none of the features, or takes guidance as an input.

        """
        if source.get("time_cond_proj_dim") is not None:
            raise UnsupportedError(
                "distill: this UNet takes guidance as an input (time_cond_proj_dim), and the losses know none.\n"
                "  Distil the model that it was made from."
            )
        cut = whole(source)
        stages = [*cut.down, *([cut.mid] if cut.mid else []), *cut.up]
        attends = any(stage.layers for stage in stages)
        lacking = {
            "self_attention": not any(stage.layers and not stage.cross_only for stage in stages),
            "cross_attention": not attends,
            "feed_forward": not attends,
        }
        if self.watched and lacking.get(str(self.features)):
            raise UnsupportedError(
                f"distill.features: the student has no {self.features} to compare.\n  Take last_of_stage or resnet, or null."
            )
        return dict(source)

    def __call__(self, part: Part) -> Part:
        """Nothing can be learned from the part alone; `teach` is called instead."""
        raise UnsupportedError(f"distill of {part.name} needs a teacher and pictures.\n  Build it, or run t2iexport distill.")

    def teach(self, student: Part, lesson: Lesson) -> Part:
        """Train the student's network, from the last checkpoint where there is one.

        Raises:
            UnsupportedError: too little memory, or a teacher that this student cannot learn from.
            DivergenceError: the loss is not finite; the last checkpoint is kept.
            MissingDependency: the tracker is not installed.

        """
        from exporter.passes._teach import teach  # noqa: PLC0415 - torch

        return teach(self, student, lesson)
