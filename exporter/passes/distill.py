"""Train a pruned or swapped network to do what the source does: a UNet as BK-SDM and KOALA do, a VAE decoder by its images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from engines.errors import UnsupportedError
from exporter.pruning.blocks import whole
from exporter.training.options import ImageLossWeights, Imitated

if TYPE_CHECKING:
    from exporter.part import Part
    from exporter.training.context import TrainingContext

__all__ = ["Distill"]


class Distill(Imitated):
    """Train the network that the passes before have made, on what the source does.

    A UNet learns by `weights` and `features`. A VAE decoder, such as one that `swap` has put in place, learns by `picture`.
    """

    picture: ImageLossWeights | None = Field(
        default=None, description="of a decoder: how its pictures are compared with the source's; {} takes the defaults"
    )

    @property
    def summary(self) -> str:
        """The pass, how long, and from what."""
        return f"distill: {self.steps} steps, {'pictures' if self.picture else self.features or 'no features'}"

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same config.

        Raises:
            UnsupportedError: the network is no UNet, has none of the features, takes guidance as an input, or learns by other
                losses.

        """
        decodes = str(source.get("_class_name")).startswith("Autoencoder")
        if decodes and (given := sorted({"weights", "features", "empty"} & self.model_fields_set)):
            raise UnsupportedError(
                f"distill.{given[0]} is for UNets, and a decoder knows neither noise nor text.\n  Give picture instead."
            )
        if decodes != (self.picture is not None):
            how = "learns from pictures.\n  Give picture: {}." if decodes else "makes none.\n  Leave it out; give weights."
            raise UnsupportedError(f"distill.picture: a {'decoder' if decodes else 'UNet'} {how}")
        if decodes:
            return dict(source)
        same = super().config(source)
        cut = whole(source, "distill")
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
        return same

    def teach(self, student: Part, lesson: TrainingContext) -> Part:
        """Train the student's network, from the last checkpoint where there is one.

        Raises:
            UnsupportedError: a teacher that this student cannot learn from.
            MachineError: too little memory.
            DivergenceError: the loss is not finite; the last checkpoint is kept.
            MissingDependency: the tracker is not installed.

        """
        from exporter.training.objectives.decoder import Decoding  # noqa: PLC0415 - torch
        from exporter.training.objectives.imitation import Imitation  # noqa: PLC0415 - torch
        from exporter.training.trainer import teach  # noqa: PLC0415 - torch

        losses = Imitation(self, student, lesson) if self.picture is None else Decoding(self, self.picture, lesson)
        return teach(self, student, lesson, losses)
