"""What stands before it learns from the source: task, output and feature loss, as BK-SDM and KOALA do; runs on accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engines.errors import UnsupportedError
from exporter.passes._cut import whole
from exporter.passes._options import Imitated

if TYPE_CHECKING:
    from exporter.lesson import Lesson
    from exporter.part import Part

__all__ = ["Distill"]


class Distill(Imitated):
    """Train the network that the passes before have made, on what the source does."""

    @property
    def remakes(self) -> bool:
        """It makes another network."""
        return True

    @property
    def swaps(self) -> bool:
        """It works on the network that is there."""
        return False

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
        from exporter.passes._imitate import Imitation  # noqa: PLC0415 - torch
        from exporter.passes._teach import teach  # noqa: PLC0415 - torch

        return teach(self, student, lesson, Imitation(self, student, lesson))
