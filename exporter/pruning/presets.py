"""Published cuts as rules, so that they fit every UNet of the kind that they were made of. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from engines.errors import UnsupportedError
from exporter.pruning.blocks import Cut, UNetStage

Rule = Callable[[str, Cut], Cut]


def _halved(name: str, cut: Cut) -> Cut:
    """BK-SDM: of every down block the first pair, of every up block the first and the last (its copy map)."""
    if any(len(stage.pairs) != 2 for stage in cut.down):
        kept = [len(stage.pairs) for stage in cut.down]
        raise UnsupportedError(f"prune.preset: {name} halves blocks of 2 resnets, and this UNet's down blocks have {kept}.")
    return replace(cut, down=tuple(_pairs(stage, 0) for stage in cut.down), up=tuple(_pairs(stage, 0, 2) for stage in cut.up))


def _pairs(stage: UNetStage, *pairs: int) -> UNetStage:
    return replace(stage, pairs=pairs, layers=tuple(stage.layers[pair] for pair in pairs) if stage.layers else ())


def _without_innermost(name: str, cut: Cut) -> Cut:
    if len(cut.down) == 1:
        raise UnsupportedError(f"prune.preset: {name} drops the innermost stage, and this UNet has one stage.")
    return Cut(cut.down[:-1], None, cut.up[1:])


def _small(name: str, cut: Cut) -> Cut:
    return replace(_halved(name, cut), mid=None)


def _tiny(name: str, cut: Cut) -> Cut:
    return _without_innermost(name, _halved(name, cut))


def _koala(share: float, *, mid: bool) -> Rule:
    """KOALA: BK-SDM's pairs, the same share of the innermost stages' transformer layers everywhere, with or without mid block."""

    def rule(name: str, cut: Cut) -> Cut:
        _deep(name, cut)
        cut = _halved(name, cut)
        down = (*cut.down[:-1], _shortened(cut.down[-1], share))
        up = (_shortened(cut.up[0], share), *cut.up[1:])
        return Cut(down, _shortened(cut.mid, share) if mid and cut.mid is not None else None, up)

    return rule


def _segmind(down: Mapping[int, float], up: Mapping[int, tuple[float, ...]]) -> Rule:
    """SSD-1B, Vega: all pairs, shares of transformer layers by stage (0 is the innermost), a mid block of one resnet."""

    def rule(name: str, cut: Cut) -> Cut:
        _deep(name, cut)
        if any(len(stage.pairs) != 3 for stage in cut.up):
            kept = [len(stage.pairs) for stage in cut.up]
            raise UnsupportedError(f"prune.preset: {name} has up blocks of 3 pairs, and this UNet's have {kept}.")
        last = len(cut.down) - 1
        downs = tuple(_shortened(stage, down.get(last - index, 1.0)) for index, stage in enumerate(cut.down))
        ups = tuple(_shortened(stage, *up.get(index, (1.0,))) for index, stage in enumerate(cut.up))
        return Cut(downs, None if cut.mid is None else replace(cut.mid, layers=()), ups)

    return rule


def _sdxs(name: str, cut: Cut) -> Cut:
    """SDXS-512 of Dreamshaper: BK-SDM-Tiny, and the outermost stage without attentions."""
    cut = _tiny(name, cut)
    return replace(cut, down=(replace(cut.down[0], layers=()), *cut.down[1:]), up=(*cut.up[:-1], replace(cut.up[-1], layers=())))


def _sdxs_cross(name: str, cut: Cut) -> Cut:
    """SDXS-512-0.9: BK-SDM-Tiny, and the outermost stage without self-attention."""
    cut = _tiny(name, cut)
    if not cut.down[0].layers:
        raise UnsupportedError(f"prune.preset: {name} keeps the outermost stage's attention to the text, and this UNet has none.")
    down, up = (replace(stage, cross_only=True) for stage in (cut.down[0], cut.up[-1]))
    return replace(cut, down=(down, *cut.down[1:]), up=(*cut.up[:-1], up))


def depth_skip(cut: Cut, depth: int) -> Cut:
    """Diffusion Model Compression for Image-to-Image Translation: the first `depth` input blocks, and as many output blocks.

    Input blocks are `conv_in`, then stage by stage the pairs and the downsampler.

    Raises:
        UnsupportedError: this UNet has not so many blocks, or its outermost stage would be cut.

    """
    least, most = 1 + len(cut.down[0].pairs), sum(len(stage.pairs) + 1 for stage in cut.down)
    if not least <= depth <= most:
        raise UnsupportedError(
            f"prune.depth: {depth}, and this UNet has {most} input blocks, of which its outermost stage has {least}; "
            f"give {least} to {most}."
        )
    down, left = list[UNetStage](), depth - 1
    for stage in cut.down:
        if left > 0:
            down.append(_pairs(stage, *stage.pairs[:left]))
        left -= len(stage.pairs) + 1
    up, left = list[UNetStage](), depth
    for stage in reversed(cut.up):
        if left > 0:
            up.insert(0, _pairs(stage, *stage.pairs[-left:]))
        left -= len(stage.pairs)
    return Cut(tuple(down), None, tuple(up), depth)


def _deep(name: str, cut: Cut) -> None:
    depths = [*cut.down[-1].depths, *cut.up[0].depths]
    if not depths or max(depths) == 1:
        raise UnsupportedError(
            f"prune.preset: {name} shortens the innermost stage's attentions, and this UNet has {max(depths, default=0)} "
            "transformer layers there: it is a cut of SDXL. For this one take bk-sdm-base, bk-sdm-small, bk-sdm-tiny or sdxs."
        )


def _shortened(stage: UNetStage, *shares: float) -> UNetStage:
    """Keep the first layers of every attention: that share, to the nearest, a half downwards, and at least one."""
    spread = shares * len(stage.layers) if len(shares) == 1 else shares
    kept = (layers[: max(1, math.ceil(share * len(layers) - 0.5))] for layers, share in zip(stage.layers, spread, strict=False))
    return replace(stage, layers=tuple(kept))


#: Name → rule. Shares are of SDXL's: KOALA 6 and 5 of 10; SSD-1B 4 of 10, 1 of 2; Vega 2 of 10, 1 of 2.
PRESETS: Mapping[str, Rule] = MappingProxyType({
    "bk-sdm-base": _halved,
    "bk-sdm-small": _small,
    "bk-sdm-tiny": _tiny,
    "koala-1b": _koala(0.6, mid=True),
    "koala-700m": _koala(0.5, mid=False),
    "ssd-1b": _segmind({0: 0.4}, {0: (0.4, 0.4, 1.0), 1: (1.0, 0.5, 0.5)}),
    "vega": _segmind({0: 0.2, 1: 0.5}, {0: (0.2,), 1: (0.5,)}),
    "sdxs": _sdxs,
    "sdxs-0.9": _sdxs_cross,
})  # fmt: skip
