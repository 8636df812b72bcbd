"""Have a UNet's self-attention see groups of tokens as one: the config of that network, and the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engines.errors import UnsupportedError
from exporter.pruning.blocks import whole

if TYPE_CHECKING:
    from exporter.part import Part


def grouped(source: Mapping[str, Any], verb: str, *, merge: int, regions: int, levels: int) -> dict[str, Any]:
    """Config of the network that `exporter.models.grouped_attention` has; imports no torch.

    Args:
        source: config of the source's network.
        verb: the pass, for messages.
        merge: side of the squares of tokens that become one key and one value.
        regions: so many by so many parts of the map see their own tokens whole.
        levels: of the resolutions that have attention, so many from the finest.

    Raises:
        UnsupportedError: a network of another class, or one without so many resolutions with attention.

    """
    cut = whole(source, verb)
    has = {stage.source for stage in cut.down if stage.layers} | ({len(cut.down) - 1} if cut.mid and cut.mid.layers else set())
    if levels > len(has):
        held = f"{len(has)} of its {len(cut.down)} resolutions have attention" if has else "it has no attention"
        raise UnsupportedError(f"{verb}: levels {levels} is too many, {held}.\n  Take {len(has)}." if has else f"{verb}: {held}.")
    plain = {name: value for name, value in source.items() if not name.startswith("_")}
    own = {"merge": merge, "regions": regions, "levels": levels}
    return {**plain, "_class_name": "GroupedAttentionUNet", "grouped_attention": own}


def regrouped(part: Part, config: Mapping[str, Any], told: str) -> Part:
    """The part with its own weights in the network of that config, and a note of which attention sees groups."""
    import torch  # noqa: PLC0415 - options are read without it

    from exporter.models.grouped_attention import GroupedAttentionUNet  # noqa: PLC0415 - torch

    with torch.device("meta"):
        made = GroupedAttentionUNet.from_config(config).eval().requires_grad_(requires_grad=False)
    made.load_state_dict(part.network.state_dict(), strict=True, assign=True)
    own = [attention for name, attention in made.named_modules() if name.endswith("attn1") and not attention.is_cross_attention]
    changed = sum(type(attention.processor).__module__ == GroupedAttentionUNet.__module__ for attention in own)
    note = f"{part.name}: {told} in {changed} of {len(own)} layers of self-attention"
    return replace(part.replacing(made), notes=(*part.notes, note))
