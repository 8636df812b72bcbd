"""Zero two weights in every four, for TensorRT's kernels that skip them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from engines.errors import UnsupportedError
from exporter.recipe.pass_options import Kind, PassOptions

if TYPE_CHECKING:
    from engines.backends import Backend
    from exporter.part import Part

__all__ = ["Sparsify"]


class Sparsify(PassOptions):
    """Zero the smallest weights of convolutions and linear layers, along their input channels.

    Nothing is trained afterwards, so it stands behind distill, and the blame table says what it cost.
    """

    kind: ClassVar[Kind] = "network"

    pattern: Literal["2:4", "unstructured"] = Field(
        default="2:4", description="two in every four input channels; unstructured is refused: no engine here is faster with it"
    )
    keep: tuple[str, ...] = Field(
        default=("conv_in", "conv_out", "time_embedding.*", "add_embedding.*"),
        description="layers that stay whole, by their names in diffusers; * stands for anything",
    )

    @property
    def summary(self) -> str:
        """The pass and the pattern."""
        return f"sparsify: {self.pattern}"

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same config."""
        return dict(source)

    def suits(self, part: str, targets: Mapping[str, Backend]) -> None:
        """Raise UnsupportedError where no target can use the zeros: they would cost quality for nothing."""
        if self.pattern == "2:4" and not all(backend.ignores_zeros for backend in targets.values()):
            return
        alone = "its kernels skip zeros in the pattern 2:4 alone"
        reasons = [f"{name}: {backend.ignores_zeros or alone}" for name, backend in targets.items()]
        raise UnsupportedError(
            f"sparsify {self.pattern} of {part}: none of its targets can use it.\n  "
            + "\n  ".join(reasons)
            + "\n  Leave sparsify out, or take pattern 2:4 and the target tensorrt: {sparse_weights: true}."
        )

    def __call__(self, part: Part) -> Part:
        """Zero the weights of the part's network, in place.

        Raises:
            UnsupportedError: no layer can have the pattern.

        """
        import torch  # noqa: PLC0415 - options are read without it
        from torch import nn  # noqa: PLC0415

        network, zeros, left = part.network, 0, 0
        for name, layer in network.named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            weight = layer.weight
            if weight.shape[1] % 4 or any(fnmatchcase(name, pattern) for pattern in self.keep):
                left += weight.numel()
                continue
            # Groups of four input channels, for every output channel and place of the kernel.
            groups = weight.detach().movedim(1, -1).unflatten(-1, (-1, 4))
            smallest = groups.abs().argsort(dim=-1, stable=True)[..., :2]
            mask = torch.ones_like(groups).scatter(-1, smallest, 0.0)
            # The weights may be mapped from a file, which is not to be written to.
            made = (groups * mask).flatten(-2).movedim(-1, 1).contiguous()
            layer.weight = nn.Parameter(made, requires_grad=False)
            zeros += weight.numel() // 2
        if not zeros:
            raise UnsupportedError(f"sparsify of {part.name}: no layer is left with input channels in fours.\n  Shorten keep.")
        total = sum(value.numel() for value in network.parameters())
        note = f"{part.name}: {self.summary} zeroes {zeros:,} of {total:,} parameters; {left:,} in layers that it leaves whole"
        finding = {"pattern": self.pattern, "zeros": zeros, "parameters": total, "whole": left}
        return replace(part.replacing(network), notes=(*part.notes, note), metadata=(*part.metadata, ("sparsify", finding)))
