"""Task, output and feature loss: the student does what was asked, what the teacher does, and has what the teacher has inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exporter.part import Part
from exporter.training.batches import BatchSampler
from exporter.training.context import LATENTS, TrainingContext
from exporter.training.memory import own
from exporter.training.objectives import features

if TYPE_CHECKING:
    from exporter.training.options import Imitated


class Imitation:
    """BK-SDM's losses, all mean squared errors in float32; the features' may be relative, which keeps large ones from ruling.

    Attributes:
        metadata: pairs of modules that are compared.

    """

    kept: Sequence[Any] = ()

    def __init__(self, options: Imitated, student: Part, lesson: TrainingContext) -> None:
        self._weights, self._teacher = options.weights, lesson.teacher.module
        self._relative = options.feature_error == "relative"
        network, source = student.network, lesson.teacher.network
        self.frozen = sum(value.numel() for value in source.parameters())
        self._draws = BatchSampler(options, lesson, LATENTS)
        pairs = features.pairs(options.features, network, source, lesson.moved) if options.features and options.watched else []
        self.metadata: dict[str, Any] = {"features": [list(pair) for pair in pairs]}
        self._watches = [features.Watch(each, [pair[side] for pair in pairs]) for side, each in enumerate((network, source))]

    def settle(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring teacher and data there."""
        self._teacher = own(self._teacher).to(device, dtype).eval()
        self._draws.settle(device)

    def draw(self, share: int) -> tuple[Tensor, ...]:
        """Target, noisy latents, times and conditioning."""
        noisy, times, states, target = self._draws.batch(share)
        return target, noisy, times, *states

    def __call__(self, model: nn.Module, target: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        """The losses of one pass."""
        watching, weights = self.metadata["features"], self._weights
        for watch in self._watches:
            watch.arm()
        with torch.no_grad():
            taught = self._teacher(*inputs) if watching or weights.output else None
        said = model(*inputs)
        found = {"task": F.mse_loss(said.float(), target)}
        total = weights.task * found["task"]
        if weights.output and taught is not None:
            found["output"] = F.mse_loss(said.float(), taught.float())
            total = total + weights.output * found["output"]
        if watching:
            both = zip(*(watch.take() for watch in self._watches), strict=True)
            errors = torch.stack([self._error(own.float(), others.float()) for own, others in both])
            found["feature"] = errors.mean() if self._relative else errors.sum()
            total = total + weights.feature * found["feature"]
        return {"loss": total, **found}

    def _error(self, own: Tensor, others: Tensor) -> Tensor:
        error = F.mse_loss(own, others)
        return error / others.square().mean() if self._relative else error

    def stepped(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing follows the student."""

    def end(self) -> None:
        """Take the hooks off."""
        for watch in self._watches:
            watch.end()
