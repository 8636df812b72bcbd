"""Perturbed-attention guidance in a UNet (2403.17377): a branch in which some self-attention is the identity, and how it counts.

The branches of a call are, as the run time gives them: what is perturbed, the negative one, the prompt's own, the last of which
is always there. With a negative prompt, two of them may be either of the others and the prompt's own; the scale of guidance says
which, picture by picture: the run time leaves the negative branch out only where that scale is off for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from engines.errors import UnsupportedError
from exporter.families.unets.self_attentions import matches

if TYPE_CHECKING:
    from exporter.recipe.sampling import PagOptions

#: Branches of a call that has them all.
_ALL = 3
#: Timestep from which `adaptive` counts down, as in diffusers.
_FIRST = 1000.0


class Branches:
    """The branches of one call.

    Args:
        latent: (B, C, H, W).
        count: branches of each picture.
        guidance: scale of classifier-free guidance (B,); None where there is none, and no negative branch.

    """

    def __init__(self, latent: Tensor, count: int, guidance: Tensor | None) -> None:
        self._pictures, self._count, self._guidance = latent.shape[0], count, guidance
        self._index = torch.arange(count, device=latent.device)

    @property
    def perturbed(self) -> Tensor:
        """Which rows are, bool (B*branches,)."""
        last = self._index[-1:]  # as a tensor, so that a graph whose number of branches is open counts them
        first = (last > 0)[:, None]
        if self._guidance is not None:
            first = first & ((self._guidance <= 1)[:, None] | (last == _ALL - 1)[:, None])
        return ((self._index == 0)[None, :] & first).expand(self._pictures, -1).flatten()

    def mixed(self, output: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The answer (B, C, H, W) of all rows' answers (B*branches, C, H, W), float32, and that of the prompt's own.

        `scale` (B,) is that of the perturbed branch. Where a branch is not there, what stands in its place does not count.
        """
        each = output.unflatten(0, (self._pictures, self._count))
        perturbed, own = each[:, 0], each[:, -1]
        found = own
        if self._guidance is not None:
            negative = each.index_select(1, (self._index[-1:] - 1).clamp(min=0))[:, 0]
            found = negative + self._guidance.reshape(-1, 1, 1, 1) * (own - negative)
        return found + scale.reshape(-1, 1, 1, 1) * (own - perturbed), own


def effective(scale: Tensor, timestep: Tensor, options: PagOptions) -> Tensor:
    """The scale (B,) at a timestep (B,)."""
    return (scale - options.adaptive * (_FIRST - timestep)).clamp(min=0) if options.adaptive else scale


@contextmanager
def perturbing(unet: nn.Module, layers: Sequence[str], chosen: Tensor) -> Iterator[None]:
    """Within it, the self-attention of these layers is the identity in the rows that are chosen, bool (rows,).

    Raises:
        UnsupportedError: a layer names no self-attention.

    """
    found = dict[str, Attention]()
    attentions = {
        name: module for name, module in unet.named_modules() if isinstance(module, Attention) and not module.is_cross_attention
    }
    for layer in layers:
        own = {name: module for name, module in attentions.items() if matches(layer, name)}
        if not own:
            there = ", ".join(sorted({name.partition(".attentions")[0] for name in attentions})) or "nowhere"
            raise UnsupportedError(
                f"sampler.guidance.pag.layers: {layer!r} names no self-attention of this UNet, which has some in {there}.\n"
                "  Write a part of the name of one of those."
            )
        found |= own
    with ExitStack() as stack:
        for module in found.values():
            _look_through(module, chosen, stack)
        yield


def _look_through(attention: Any, chosen: Tensor, stack: ExitStack) -> None:  # noqa: ANN401 - its layers have no strict types
    """Let the chosen rows of an attention pass from its value layer to its output layer, whatever computes the attention."""
    values: list[Tensor] = []

    def same(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.where(chosen[:, None, None], values.pop(), args[0]), *args[1:]

    stack.callback(attention.to_v.register_forward_hook(lambda _module, _args, found: values.append(found)).remove)
    stack.callback(attention.to_out[0].register_forward_pre_hook(same).remove)


def perturbed_first(features: Sequence[Tensor], pictures: int) -> list[Tensor]:
    """What diffusers kept of its calls, (branches*B, …), with the perturbed branch first; what was one tensor is so again."""
    moved = {id(feature): feature.roll(pictures, 0) for feature in features}
    return [moved[id(feature)] for feature in features]
