"""What a decoder learns: to make the picture that the source's decoder makes of the same latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exporter.training.batches import Rows, order, settle
from exporter.training.context import LATENTS, TrainingContext
from exporter.training.memory import own

if TYPE_CHECKING:
    from exporter.training.options import ImageLossWeights, Options


class Decoding:
    """Differences of two decoders' pictures (N, H, W, 3), whose values are in [0, 1]; the student's are not cut to that."""

    kept: Sequence[Any] = ()

    def __init__(self, options: Options, weights: ImageLossWeights, lesson: TrainingContext) -> None:
        self._options, self._weights = options, weights
        self._teacher: nn.Module = lesson.teacher.module
        self.frozen = sum(value.numel() for value in self._teacher.parameters())
        self.metadata: Mapping[str, Any] = {"picture": weights.model_dump()}
        self._latents = Rows(lesson.encoded / LATENTS)
        self._device = torch.device("cpu")

    def settle(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring teacher and latents there."""
        self._device = device
        self._teacher = own(self._teacher).to(device, dtype).eval()
        settle([self._latents], device)

    def draw(self, share: int) -> tuple[Tensor, ...]:
        """Latents (N, C, h, w)."""
        options = self._options
        return (self._latents.take(order(options.seed, share, options.batch, len(self._latents))),)

    def __call__(self, model: nn.Module, *drawn: Tensor) -> dict[str, Tensor]:
        """The losses of one pass."""
        (latent,) = drawn
        with torch.no_grad():
            wanted = self._teacher(latent)
        made = model(latent)
        down, across = (F.l1_loss(made.diff(dim=axis), wanted.diff(dim=axis)) for axis in (1, 2))
        found = {
            "absolute": F.l1_loss(made, wanted),
            "squared": F.mse_loss(made, wanted),
            "edges": down + across,
        }
        total = made.new_zeros(())
        for name, weight in self._weights.model_dump().items():
            if weight:
                total = total + weight * found[name]
        return {"loss": total, **found}

    def stepped(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing follows the student."""

    def end(self) -> None:
        """Nothing was changed."""
