"""A cut of a UNet2DConditionModel: which of its pieces stay, as a config that diffusers can read. Needs no torch.

Pieces are named as diffusers names them. A stage is one `down_blocks.i` or `up_blocks.i`; a pair is one of its resnets with the
attention behind it, where the stage has attentions; a layer is one of an attention's `transformer_blocks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field, field_validator

from engines.errors import UnsupportedError
from engines.plugins import did_you_mean
from engines.strict import Frozen

Config = Mapping[str, Any]
_CLASS = "UNet2DConditionModel"
_DOWN, _UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
_MID = {"UNetMidBlock2DCrossAttn": 1, "UNetMidBlock2D": 0}
#: Fields of a config that have a value per stage, outermost first, or one value for all.
_PER_STAGE = ("block_out_channels", "attention_head_dim", "num_attention_heads", "cross_attention_dim")
#: What diffusers takes for fields that a config leaves out.
_DEFAULTS = {
    "down_block_types": [_DOWN[1], _DOWN[1], _DOWN[1], _DOWN[0]],
    "up_block_types": [_UP[0], _UP[1], _UP[1], _UP[1]],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
}
_NAME = re.compile(r"(down_blocks|up_blocks)\.(\d+)|mid_block")


class Block(Frozen):
    """What stays of one block; whatever is not said stays whole."""

    pairs: tuple[int, ...] | None = Field(default=None, description="resnets, with their attentions, that stay, by index")
    layers: tuple[int, ...] | tuple[tuple[int, ...], ...] | None = Field(
        default=None, description="transformer layers that stay, by index: one list for every attention, or a list for each"
    )
    attention: Literal["full", "cross", "none"] = Field(
        default="full", description="cross: without self-attention; none: without attentions"
    )

    @field_validator("pairs")
    @classmethod
    def _some(cls, pairs: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if pairs is not None and (not pairs or list(pairs) != sorted(set(pairs))):
            raise ValueError(f"{list(pairs)} must name at least one pair, rising, none twice; a block that is gone is null")
        return pairs


#: Block's name in diffusers → what stays of it, None where nothing does.
Blocks = Mapping[str, Block | None]


@dataclass(frozen=True)
class UNetStage:
    """What stays of one stage, by the source's indices.

    Attributes:
        source: index of the stage in the source.
        pairs: its resnets that stay.
        layers: per pair, the transformer layers of its attention that stay; empty where there are no attentions.
        cross_only: whether its transformer layers attend to the text alone.
        was_full: whether in the source they attend to themselves too.

    """

    source: int
    pairs: tuple[int, ...]
    layers: tuple[tuple[int, ...], ...] = ()
    cross_only: bool = False
    was_full: bool = True

    @property
    def depths(self) -> list[int]:
        """Transformer layers of every attention."""
        return [len(layers) for layers in self.layers]


@dataclass(frozen=True)
class Cut:
    """What stays: down stages from the outermost, the mid block with its first layer's attention as one pair, up stages.

    With a `depth` the innermost blocks do not run, and `exporter.models.depth_skip` has the network.
    """

    down: tuple[UNetStage, ...]
    mid: UNetStage | None
    up: tuple[UNetStage, ...]
    depth: int | None = None


def require_unet(config: Config, verb: str) -> None:
    """Raise UnsupportedError for a network of another class: what this package knows of UNets is untrue of it."""
    if (kind := config.get("_class_name", _CLASS)) != _CLASS:
        raise UnsupportedError(f"{verb} knows {_CLASS} alone, and this network is {kind}.\n  Leave it out of its passes.")


def whole(config: Config, verb: str = "prune") -> Cut:
    """The cut that leaves everything.

    Raises:
        UnsupportedError: another class, or blocks of other kinds than Stable Diffusion's and SDXL's; `verb` is who refuses.

    """
    require_unet(config, verb)
    config = _DEFAULTS | dict(config)
    down_types, up_types, mid_type = config["down_block_types"], config["up_block_types"], config["mid_block_type"]
    strange = [kind for kind in (*down_types, *up_types) if kind not in {*_DOWN, *_UP}]
    strange += [] if mid_type is None or mid_type in _MID else [mid_type]
    strange += ["dual_cross_attention"] if config.get("dual_cross_attention") else []
    if strange:
        raise UnsupportedError(f"{verb} knows the blocks {', '.join((*_DOWN, *_UP, *_MID))}, and this UNet has {strange[0]}.")
    count = len(down_types)
    pairs, depths = _per_stage(config["layers_per_block"], count), _per_stage(config["transformer_layers_per_block"], count)
    only = _per_stage(config.get("only_cross_attention", False), count)
    up_depths = config.get("reverse_transformer_layers_per_block") or depths[::-1]

    def stage(index: int, number: int, kind: str, depth: Any, cross: bool) -> UNetStage:  # noqa: ANN401, FBT001 - int or list of int
        layers = tuple(tuple(range(each)) for each in _per_stage(depth, number)) if kind.startswith("CrossAttn") else ()
        return UNetStage(index, tuple(range(number)), layers, cross and bool(layers), not cross)

    mid = None
    if mid_type is not None:
        layers = (tuple(range(_per_stage(depths[-1], 1)[0])),) if _MID[mid_type] else ()
        mid = UNetStage(0, (0,), layers)
    return Cut(
        tuple(stage(index, pairs[index], down_types[index], depths[index], only[index]) for index in range(count)),
        mid,
        tuple(stage(i, pairs[-1 - i] + 1, up_types[i], up_depths[i], only[-1 - i]) for i in range(count)),
    )


def chosen(source: Cut, blocks: Blocks) -> Cut:
    """Leave of every block what `blocks` says.

    Raises:
        UnsupportedError: a block, pair or layer that the network has not.

    """
    known = [*(f"down_blocks.{stage.source}" for stage in source.down), *(f"up_blocks.{stage.source}" for stage in source.up)]
    known += [] if source.mid is None else ["mid_block"]
    for name in blocks:
        if not _NAME.fullmatch(name) or name not in known:
            raise UnsupportedError(f"prune.blocks.{name}: this UNet has no such block{did_you_mean(name, known)}")

    def side(name: str, stages: Sequence[UNetStage]) -> tuple[UNetStage, ...]:
        wished = ((stage, blocks.get(f"{name}.{stage.source}", Block())) for stage in stages)
        return tuple(_left(f"{name}.{stage.source}", stage, block) for stage, block in wished if block is not None)

    block = blocks.get("mid_block", Block())
    mid = None if source.mid is None or block is None else _left("mid_block", source.mid, block)
    return Cut(side("down_blocks", source.down), mid, side("up_blocks", source.up))


def _left(name: str, stage: UNetStage, block: Block) -> UNetStage:
    where = f"prune.blocks.{name}"
    pairs = stage.pairs if block.pairs is None else block.pairs
    if wrong := sorted(set(pairs) - set(stage.pairs)):
        raise UnsupportedError(f"{where}.pairs: there is no pair {wrong[0]}; it has {list(stage.pairs)}")
    if block.attention == "none":
        return replace(stage, pairs=pairs, layers=(), cross_only=False)
    if not stage.layers:
        if block.layers is not None or block.attention != "full":
            raise UnsupportedError(f"{where}: this block has no attentions, so there are no layers to choose")
        return replace(stage, pairs=pairs)
    had = [stage.layers[stage.pairs.index(pair)] for pair in pairs]
    wished = had if block.layers is None else _lists(block.layers, len(pairs))
    if len(wished) != len(pairs):
        raise UnsupportedError(f"{where}.layers: {len(wished)} lists for {len(pairs)} attentions; give one list, or {len(pairs)}")
    for layers, own in zip(wished, had, strict=True):
        if not layers or not set(layers) <= set(own) or list(layers) != sorted(set(layers)):
            raise UnsupportedError(
                f"{where}.layers: {list(layers)} must be at least one of {list(own)}, rising, none twice; a block without "
                "attentions has `attention: none`"
            )
    return replace(stage, pairs=pairs, layers=tuple(wished), cross_only=stage.cross_only or block.attention == "cross")


def _lists(layers: tuple[int, ...] | tuple[tuple[int, ...], ...], count: int) -> list[tuple[int, ...]]:
    """A list for each attention; one alone stands for them all."""
    lists = [each for each in layers if isinstance(each, tuple)]
    return lists or [tuple(each for each in layers if isinstance(each, int))] * count


def blocks(cut: Cut, source: Cut) -> dict[str, Block | None]:
    """The blocks by which `chosen` makes this cut of the source, the shortest way to say it."""
    found: dict[str, Block | None] = {}
    for name, stages, before in (("down_blocks", cut.down, source.down), ("up_blocks", cut.up, source.up)):
        kept = {stage.source: stage for stage in stages}
        found |= {f"{name}.{old.source}": _said(kept.get(old.source), old) for old in before if kept.get(old.source) != old}
    if source.mid is not None and cut.mid != source.mid:
        found["mid_block"] = _said(cut.mid, source.mid)
    return found


def _said(stage: UNetStage | None, old: UNetStage) -> Block | None:
    if stage is None:
        return None
    pairs = stage.pairs if stage.pairs != old.pairs else None
    if old.layers and not stage.layers:
        return Block(pairs=pairs, attention="none")
    had = tuple(old.layers[old.pairs.index(pair)] for pair in stage.pairs) if old.layers else ()
    layers = None if stage.layers == had else stage.layers[0] if len(set(stage.layers)) == 1 else stage.layers
    return Block(pairs=pairs, layers=layers, attention="cross" if stage.cross_only and not old.cross_only else "full")


def config(source: Config, cut: Cut) -> dict[str, Any]:
    """Config of the cut network.

    Raises:
        UnsupportedError: diffusers' config cannot say it.

    """
    source = _DEFAULTS | dict(source)
    # What begins with _ is about the old network; `_use_default_values` would even undo what is set here.
    found = {name: value for name, value in source.items() if not name.startswith("_")}
    if cut.depth is not None:
        return {**found, "_class_name": "DepthSkipUNet", "depth": cut.depth}
    _refuse(source, cut)
    count = len(cut.down)
    for name in _PER_STAGE:
        if isinstance(found.get(name), list | tuple):
            found[name] = [found[name][stage.source] for stage in cut.down]
    found["down_block_types"] = [_DOWN[bool(stage.layers)] for stage in cut.down]
    found["up_block_types"] = [_UP[bool(stage.layers)] for stage in cut.up]
    found["mid_block_type"] = None if cut.mid is None else next(k for k, has in _MID.items() if has == bool(cut.mid.layers))
    found["layers_per_block"] = _short([len(stage.pairs) for stage in cut.down])
    only = [down.cross_only or up.cross_only for down, up in zip(cut.down, cut.up[::-1], strict=True)]
    found["only_cross_attention"] = _short(only)
    before = _per_stage(source["transformer_layers_per_block"], len(source["down_block_types"]))
    down = [_depth(stage) for stage in cut.down]
    up = [_depth(stage) for stage in cut.up]
    for index, stage in enumerate(cut.down):
        if stage.layers:
            continue
        # Without attentions the entry speaks for the other side alone, or for the mid block, or for nobody.
        innermost = index == count - 1 and cut.mid is not None and cut.mid.layers
        old = before[stage.source]
        down[index] = cut.mid.depths[0] if innermost and cut.mid else up[-1 - index] or (old if isinstance(old, int) else 1)
    up = [entry or down[-1 - index] for index, entry in enumerate(up)]
    symmetric = all(isinstance(entry, int) for entry in down) and up == down[::-1]
    found["transformer_layers_per_block"] = _short(down)
    found["reverse_transformer_layers_per_block"] = None if symmetric else up
    return found


def _refuse(source: Config, cut: Cut) -> None:
    said = "diffusers' config cannot say that"
    if not cut.down or [stage.source for stage in cut.down] != list(range(len(cut.down))):
        raise UnsupportedError(f"prune: only the innermost stages can go, and one must stay; {said}.")
    total = len(source["down_block_types"])
    if [total - 1 - stage.source for stage in cut.up[::-1]] != [stage.source for stage in cut.down]:
        raise UnsupportedError(
            "prune: a stage goes on both sides or on neither: with "
            + ", ".join(f"down_blocks.{i} goes up_blocks.{total - 1 - i}" for i in range(total))
            + "."
        )
    channels = source["block_out_channels"]
    if len(cut.down) < total and channels[len(cut.down) - 1] != channels[len(cut.down)]:
        raise UnsupportedError(
            f"prune: the innermost stage can go only where the next one has its channels, or their weights do not fit; here "
            f"{channels[len(cut.down)]} and {channels[len(cut.down) - 1]}."
        )
    if len(cut.down) < total and cut.mid is not None:
        raise UnsupportedError("prune: where the innermost stage goes, the mid block goes too: it has lost its resolution.")
    for down, up in zip(cut.down, cut.up[::-1], strict=True):
        where = f"down_blocks.{down.source} and up_blocks.{up.source}"
        if len(up.pairs) != len(down.pairs) + 1:
            raise UnsupportedError(
                f"prune: {where} keep {len(down.pairs)} and {len(up.pairs)} pairs; an up block has one more than its down block."
            )
        sides = [side.cross_only for side in (down, up) if side.layers]
        if len(set(sides)) > 1:
            raise UnsupportedError(f"prune: {where} lose their self-attention together; {said}.")
    mid, last = cut.mid, cut.down[-1]
    if mid is not None and mid.layers and last.layers and mid.depths[0] != last.depths[0]:
        raise UnsupportedError(
            f"prune: the mid block would have {mid.depths[0]} transformer layers and down_blocks.{last.source}'s first attention "
            f"{last.depths[0]}; {said}, so give both the same number."
        )


def origin(cut: Cut) -> dict[str, str]:
    """Prefix of a weight's name in the cut network → prefix in the source; the longest that fits counts."""
    found: dict[str, str] = {}
    for side, stages in (("down_blocks", cut.down), ("up_blocks", cut.up)):
        for index, stage in enumerate(stages):
            found |= dict(_moved(f"{side}.{index}.", f"{side}.{stage.source}.", stage))
    if cut.mid is not None:
        found |= dict(_moved("mid_block.", "mid_block.", cut.mid))
    return found


def _moved(new: str, old: str, stage: UNetStage) -> Iterator[tuple[str, str]]:
    yield new, old
    for index, pair in enumerate(stage.pairs):
        yield f"{new}resnets.{index}.", f"{old}resnets.{pair}."
        yield f"{new}attentions.{index}.", f"{old}attentions.{pair}."
    if new == "mid_block.":
        yield "mid_block.resnets.1.", "mid_block.resnets.1."
    for index, (pair, layers) in enumerate(zip(stage.pairs, stage.layers, strict=bool(stage.layers))):
        for place, layer in enumerate(layers):
            here, there = (
                f"{new}attentions.{index}.transformer_blocks.{place}.",
                f"{old}attentions.{pair}.transformer_blocks.{layer}.",
            )
            yield here, there
            if stage.cross_only and stage.was_full:
                # Keys and values of another width: the layer's own attention to the text, with its norm, stands in.
                yield f"{here}attn1.", f"{there}attn2."
                yield f"{here}norm1.", f"{there}norm2."


def _depth(stage: UNetStage) -> Any:  # noqa: ANN401 - int or list of int, as diffusers takes it; 0 without attentions
    return _short(stage.depths) if stage.layers else 0


def _short(values: Sequence[Any]) -> Any:  # noqa: ANN401
    return values[0] if all(value == values[0] and not isinstance(value, list) for value in values) else list(values)


def _per_stage(value: Any, count: int) -> list[Any]:  # noqa: ANN401 - one value, or a value for each
    return list(value) if isinstance(value, list | tuple) else [value] * count
