"""A UNet whose self-attention sees groups of neighbouring tokens as one, chosen by position, so that nothing depends on data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn
from torch.nn import functional

from engines.errors import UnsupportedError


class Grouping(NamedTuple):
    """What queries see.

    Attributes:
        merge: side of the squares of tokens whose mean is one key and one value.
        regions: so many by so many parts of the map; each sees its own tokens whole, and all of the map merged. With one alone
            all queries see what is merged.
        levels: of the resolutions that have attention, so many from the finest.

    """

    merge: int
    regions: int
    levels: int


class GroupedAttentionUNet(UNet2DConditionModel):
    """diffusers' UNet2DConditionModel with fewer keys and values in the self-attention of its finest resolutions.

    Weights and their names are the whole network's. Its config is that one's, and `grouped_attention`, a `Grouping`'s fields.
    """

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - diffusers'
        """Build the network, and have its self-attention see groups."""
        grouping = config["grouped_attention"]
        plain = {name: config[name] for name in config if name != "grouped_attention"}
        found = super().from_config(plain, *arguments, **options)
        made = found[0] if isinstance(found, tuple) else found  # which it is where the unused arguments are asked for
        made.register_to_config(grouped_attention=grouping)
        for transformer in _transformers(made, Grouping(**grouping).levels):
            _Map(transformer, Grouping(**grouping))
        return found


def _transformers(unet: Any, levels: int) -> Iterator[nn.Module]:  # noqa: ANN401 - diffusers' UNet2DConditionModel
    """The spatial transformers of the finest resolutions that have any."""
    count = len(unet.down_blocks)
    blocks = [*enumerate(unet.down_blocks), *((count - 1 - index, block) for index, block in enumerate(unet.up_blocks))]
    blocks += [(count - 1, unet.mid_block)] if unet.mid_block is not None else []
    having = [(level, list(block.attentions)) for level, block in blocks if getattr(block, "attentions", None)]
    finest = sorted({level for level, _ in having})[:levels]
    return (each for level, attentions in having if level in finest for each in attentions)


class _Map:
    """Attention processor of one spatial transformer, which tells it the size of the map that the tokens came from."""

    def __init__(self, transformer: nn.Module, grouping: Grouping) -> None:
        self._grouping, self._size = grouping, (0, 0)
        transformer.register_forward_pre_hook(self._seen, with_kwargs=True)
        for block in transformer.get_submodule("transformer_blocks").children():
            attention: Any = block.get_submodule("attn1")
            if not attention.is_cross_attention:
                self._plain = attention.processor
                attention.set_processor(self)

    def _seen(self, _: nn.Module, args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        (hidden,) = args or (given["hidden_states"],)
        self._size = hidden.shape[-2:]

    def __call__(self, attention: Attention, hidden_states: torch.Tensor, **given: Any) -> torch.Tensor:  # noqa: ANN401 - diffusers'
        """Attend from all tokens, float (B, height·width, C), to those that are left."""
        given.pop("encoder_hidden_states", None)
        height, width = self._size
        merge, regions, _ = self._grouping
        tokens = hidden_states.unflatten(1, (height, width))
        merged = functional.avg_pool2d(tokens.movedim(-1, 1), merge, ceil_mode=True).flatten(2).transpose(1, 2)
        if regions == 1:
            return self._plain(attention, hidden_states, encoder_hidden_states=merged, **given)
        if height % regions or width % regions:
            raise UnsupportedError(
                f"regional_attention: a map of {height} x {width} tokens does not divide into {regions} x {regions}.\n"
                "  Take fewer regions, or sizes of a larger multiple."
            )
        # (B, height, width, C) → (regions², B, tokens of one, C); each with the whole map merged behind its own.
        parts = tokens.unflatten(2, (regions, -1)).unflatten(1, (regions, -1)).permute(1, 3, 0, 2, 4, 5)
        own = parts.flatten(3, 4).flatten(0, 1)
        seen = torch.cat([own, merged.expand(regions**2, -1, -1, -1)], dim=2)
        made = self._plain(attention, own.flatten(0, 1), encoder_hidden_states=seen.flatten(0, 1), **given)
        back = made.view(parts.shape).permute(2, 0, 3, 1, 4, 5)
        return back.flatten(3, 4).flatten(1, 2).flatten(1, 2)
