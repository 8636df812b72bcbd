"""Which self-attention layers a UNet has, by its config and diffusers' names, and which a recipe perturbs. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

_DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("CrossAttnUpBlock2D", "UpBlock2D")
_MID = ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None)
#: What diffusers takes for fields that a config leaves out.
_DEFAULTS: Mapping[str, Any] = {
    "down_block_types": [_DOWN[0], _DOWN[0], _DOWN[0], _DOWN[1]],
    "mid_block_type": _MID[0],
    "up_block_types": [_UP[1], _UP[0], _UP[0], _UP[0]],
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
    "only_cross_attention": False,
}
#: Blocks, and attentions within one, that a message names before it stops.
_SHOWN = 8


def matches(layer: str, name: str) -> bool:
    """Whether a recipe's layer names a module, as `PAGMixin` of diffusers looks for it: a pattern, found anywhere in the name."""
    ends = layer.rpartition(".")[2], name.rpartition(".")[2]
    return re.search(layer, name) is not None and not (ends[0].isnumeric() and ends[0] == ends[1])


def problem(config: Mapping[str, Any], layers: Sequence[str]) -> str:
    """Which of a recipe's layers name nothing in a UNet of that config, and what there is; else nothing."""
    there = names(config)
    if there is None:
        return ""
    missing = [layer for layer in layers if not any(matches(layer, name) for name in there)]
    if not missing:
        return ""
    if not there:
        return "this UNet has no self-attention that could be perturbed; leave pag out"
    attentions = [name.partition(".transformer_blocks")[0] for name, _ in groupby(there)]
    blocks = list(dict.fromkeys(name.partition(".attentions")[0] for name in attentions))
    within = ", ".join(list(dict.fromkeys(attentions))[:_SHOWN])
    return f"{missing[0]!r} names no self-attention of this UNet, which has some in {', '.join(blocks)}, such as {within}"


def names(config: Mapping[str, Any]) -> list[str] | None:
    """Names of the self-attention layers in the order of the network; None where it has blocks that are not known."""
    config = {**_DEFAULTS, **{name: value for name, value in config.items() if value is not None or name == "mid_block_type"}}
    down, up, mid = config["down_block_types"], config["up_block_types"], config["mid_block_type"]
    if not ({*down} <= {*_DOWN} and {*up} <= {*_UP} and mid in _MID):
        return None
    count = len(down)
    layers, depths, cross = (
        _each(config[name], count) for name in ("layers_per_block", "transformer_layers_per_block", "only_cross_attention")
    )
    mirrored = config.get("reverse_transformer_layers_per_block") or depths[::-1]
    found = list[str]()
    for index, kind in enumerate(down):
        if kind == _DOWN[0] and not cross[index]:
            found += _block(f"down_blocks.{index}", _each(depths[index], layers[index]))
    if mid == _MID[0]:
        found += _block("mid_block", _each(depths[-1], 1)[:1])
    for index, kind in enumerate(up):
        if kind == _UP[0] and not cross[-1 - index]:
            found += _block(f"up_blocks.{index}", _each(mirrored[index], layers[-1 - index] + 1))
    return found


def _block(name: str, depths: Sequence[int]) -> list[str]:
    return [
        f"{name}.attentions.{pair}.transformer_blocks.{layer}.attn1"
        for pair, depth in enumerate(depths)
        for layer in range(depth)
    ]


def _each(value: Any, count: int) -> list[Any]:  # noqa: ANN401 - one for all, or one each
    return list(value) if isinstance(value, list | tuple) else [value] * count
