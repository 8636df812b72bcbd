"""Whole pieces of a UNet go: bk-sdm-base|small|tiny, koala-1b|700m, ssd-1b, vega, sdxs, sdxs-0.9, or a block map of your own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from engines.frozen import Frozen
from exporter.passes._cut import Block, Cut, chosen, config, origin, whole
from exporter.passes._presets import PRESETS

if TYPE_CHECKING:
    from exporter.part import Part

__all__ = ["Prune"]
_WAYS = ("preset", "blocks")


class Prune(Frozen):
    """Drop stages, resnets, attentions and transformer layers of a UNet; what stays keeps its weights.

    The result is a plain UNet2DConditionModel. It is not trained here: without distillation its pictures are noise.
    """

    preset: (
        Literal["bk-sdm-base", "bk-sdm-small", "bk-sdm-tiny", "koala-1b", "koala-700m", "ssd-1b", "vega", "sdxs", "sdxs-0.9"]
        | None
    ) = Field(default=None, description="a published cut, as a rule that fits other UNets too")
    blocks: dict[str, Block | None] | None = Field(
        default=None, description="block → what stays of it: down_blocks.0, up_blocks.2, mid_block; null where nothing does"
    )

    weights: Literal["kept", "random"] = Field(
        default="kept", description="random: the shape alone, to compare with training from scratch"
    )
    seed: int = Field(default=0, ge=0, description="of random weights")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in _WAYS if getattr(self, name) is not None]
        if len(given) != 1:
            told = f"both {' and '.join(given)} are given" if given else "nothing says what goes"
            raise ValueError(f"{told}; give one of {', '.join(_WAYS)}")
        if self.weights == "kept" and self.seed:
            raise ValueError("seed has no effect where weights are kept; leave it out, or set weights: random")
        return self

    @property
    def remakes(self) -> bool:
        """It makes another network."""
        return True

    @property
    def swaps(self) -> bool:
        """It works on the network that is there."""
        return False

    @property
    def trains(self) -> bool:
        """It does not."""
        return False

    @property
    def recorded(self) -> bool:
        """Presets and block maps need no recording."""
        return False

    @property
    def made(self) -> None:
        """Any sampler that suited the source suits it."""
        return

    @property
    def told(self) -> str:
        """The pass and what chose."""
        return f"prune: {self.preset or 'a block map'}{', random weights' * (self.weights == 'random')}"

    def moved(self, source: Mapping[str, Any], _findings: Mapping[str, Any]) -> Mapping[str, str]:
        """Prefix of a module in the smaller network → prefix in the source."""
        return origin(self._cut(source))

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Config of the smaller network.

        Raises:
            UnsupportedError: the preset does not fit this UNet, a block is not there, or diffusers' config cannot say the result.

        """
        return config(source, self._cut(source))

    def __call__(self, part: Part) -> Part:
        """Cut the part's network, with its own tensors, unless new ones are asked for.

        Raises:
            UnsupportedError: as for `config`; or the part has no UNet.

        """
        from exporter.passes._surgery import carry_out, drawn_anew  # noqa: PLC0415 - torch

        network = part.network
        cut = self._cut(network.config)
        before = sum(value.numel() for value in network.parameters())
        made = carry_out(network, cut) if self.weights == "kept" else drawn_anew(network, cut, self.seed)
        after = sum(value.numel() for value in made.parameters())
        note = f"{part.name}: {self.told} keeps {after:,} of {before:,} parameters ({after / before:.1%})"
        return replace(part.having(made), notes=(*part.notes, note))

    def _cut(self, source: Mapping[str, Any]) -> Cut:
        everything = whole(source)
        if self.blocks is not None:
            return chosen(everything, self.blocks)
        return PRESETS[str(self.preset)](str(self.preset), everything)
