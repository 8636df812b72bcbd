"""What a search may take away from a cut next: a piece, or pieces that the config lets go only together. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from exporter.pruning.blocks import Cut, UNetStage


def moves(cut: Cut) -> Iterator[tuple[str, Cut]]:
    """Name and result of every smaller cut that is one step away; whether their weights fit is not known here.

    At least one stage and one attention stay. Names are of the source's pieces, so that a move has one name however far the
    search has come.
    """
    for name, smaller in (*_mid(cut), *_stages(cut), *_layers(cut)):
        if any(stage.layers for stage in (*smaller.down, *smaller.up)):
            yield name, smaller


def _mid(cut: Cut) -> Iterator[tuple[str, Cut]]:
    if cut.mid is not None:
        yield "mid_block", replace(cut, mid=None)
        if cut.mid.layers:
            yield "mid_block: attention", replace(cut, mid=replace(cut.mid, layers=()))


def _stages(cut: Cut) -> Iterator[tuple[str, Cut]]:
    """A pair of a down block goes with one of its up block, an innermost stage with both sides and the mid block."""
    last = len(cut.down) - 1
    for place, down in enumerate(cut.down):
        up = cut.up[last - place]
        if len(down.pairs) > 1:
            for here in down.pairs:
                for there in up.pairs:
                    name = f"down_blocks.{down.source}: pair {here}, up_blocks.{up.source}: pair {there}"
                    yield name, _with(_with(cut, "down", place, _without(down, here)), "up", last - place, _without(up, there))
        for side, stage, index in (("down", down, place), ("up", up, last - place)):
            if stage.layers:
                yield f"{side}_blocks.{stage.source}: attentions", _with(cut, side, index, replace(stage, layers=()))
    if last:
        yield f"down_blocks.{cut.down[last].source}, up_blocks.{cut.up[0].source}", Cut(cut.down[:-1], None, cut.up[1:])


def _layers(cut: Cut) -> Iterator[tuple[str, Cut]]:
    """A transformer layer of one attention; the mid block's goes with that of the last down block, whose depth it shares."""
    last = len(cut.down) - 1
    mid = cut.mid if cut.mid is not None and cut.mid.layers else None
    for side in ("down", "up"):
        for place, stage in enumerate(getattr(cut, side)):
            for index, pair in enumerate(stage.pairs if stage.layers else ()):
                tied = mid if (side, place, index) == ("down", last, 0) else None
                for layer in stage.layers[index] if len(stage.layers[index]) > 1 else ():
                    name = f"{side}_blocks.{stage.source}.attentions.{pair}: layer {layer}"
                    smaller = _with(cut, side, place, _shorter(stage, index, layer))
                    if tied is None:
                        yield name, smaller
                        continue
                    for other in tied.layers[0]:
                        yield f"{name}, mid_block: layer {other}", replace(smaller, mid=_shorter(tied, 0, other))
    if mid is not None and len(mid.layers[0]) > 1 and not cut.down[last].layers:
        for layer in mid.layers[0]:
            yield f"mid_block: layer {layer}", replace(cut, mid=_shorter(mid, 0, layer))


def _with(cut: Cut, side: str, place: int, stage: UNetStage) -> Cut:
    stages = list(getattr(cut, side))
    stages[place] = stage
    return replace(cut, **{side: tuple(stages)})


def _without(stage: UNetStage, pair: int) -> UNetStage:
    kept = [index for index, each in enumerate(stage.pairs) if each != pair]
    layers = tuple(stage.layers[index] for index in kept) if stage.layers else ()
    return replace(stage, pairs=tuple(stage.pairs[index] for index in kept), layers=layers)


def _shorter(stage: UNetStage, index: int, layer: int) -> UNetStage:
    layers = list(stage.layers)
    layers[index] = tuple(each for each in layers[index] if each != layer)
    return replace(stage, layers=tuple(layers))
