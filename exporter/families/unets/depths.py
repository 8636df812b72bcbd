"""How deep a UNet can be taken apart for step caching, by its config; `shallow` does it. Reads configs without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engines.guidance import BRANCHES
from engines.signature import Port
from exporter.part import DEEP

if TYPE_CHECKING:
    from exporter.recipe.sampling import CacheOptions

_TYPES = {
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
_KNOWN = ("DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")


def deep_feature(config: Mapping[str, Any], latent: Port, branches: int) -> Port:
    """What a whole call leaves for the shallow ones: float32, per branch, at the latent's resolution, whatever the depth."""
    width = int(config.get("block_out_channels", [320])[0])
    return Port(name=DEEP, shape=("batch", BRANCHES if branches > 1 else 1, width, *latent.shape[2:]))


def shallow_inputs(config: Mapping[str, Any], inputs: Sequence[Port], cache: CacheOptions, deep: Port) -> list[Port]:
    """What its outermost layers take of a denoiser's inputs, hidden states where they have attention, and the deep feature."""
    read = [port for port in inputs if len(port.shape) != 4 or port.name == "latent" or reads_text(config, cache.depth)]
    return [*read, deep]


def reads_text(config: Mapping[str, Any], depth: int) -> bool:
    """Whether the layers outside of the deep feature read the text: whether a block among theirs has attention."""
    first, last = _outermost(config)
    return last.startswith("CrossAttn") or (depth > 0 and first.startswith("CrossAttn"))


def offered(config: Mapping[str, Any]) -> range:
    """The depths of the shallow graphs that a UNet of that config has; none where it cannot be taken apart."""
    if _strange(config):
        return range(0)
    layers = config.get("layers_per_block", 2)
    return range(int(layers if isinstance(layers, int) else layers[0]))  # its up block has one layer more than its down block


def problem(config: Mapping[str, Any], depth: int) -> str:
    """Why a UNet of that config has no shallow graph of that depth, and which it has; else nothing."""
    if other := _strange(config):
        return f"the outermost block {other[0]} of this UNet cannot be taken apart; these can: {', '.join(_KNOWN)}"
    if depth in (depths := offered(config)):
        return ""
    most = depths[-1]
    return f"depth {depth} is deeper than the outermost blocks of this UNet; what fits: {f'0 to {most}' if most else '0'}"


def _strange(config: Mapping[str, Any]) -> list[str]:
    """The outermost blocks that cannot be taken apart."""
    return [block for block in _outermost(config) if block not in _KNOWN]


def _outermost(config: Mapping[str, Any]) -> tuple[str, str]:
    types = {**_TYPES, **{name: config[name] for name in _TYPES if config.get(name)}}
    return str(types["down_block_types"][0]), str(types["up_block_types"][-1])
