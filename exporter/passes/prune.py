"""Remove pieces of a UNet: by preset (bk-sdm-*, koala-*, ssd-1b, vega, sdxs*, depth-skip), by a block map, or by a search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from engines.strict import Frozen
from exporter.pruning.blocks import Block, Cut, chosen, config, origin, whole
from exporter.pruning.presets import PRESETS, depth_skip
from exporter.recipe.pass_options import Kind, PassOptions

if TYPE_CHECKING:
    from exporter.part import Part

__all__ = ["Prune"]
_WAYS = ("preset", "blocks", "search")
_SKIPS = "depth-skip"


class Search(Frozen):
    """Take pieces away, each time the one that changes the output least for what it saves."""

    budget: float = Field(gt=0, lt=1, description="largest share that may stay")
    of: Literal["parameters", "time"] = Field(
        default="parameters", description="what is saved; time is that of a call on the machine that searches"
    )
    calls: int = Field(
        default=12, ge=1, description="recorded calls that are compared, spread evenly over the source's trajectories"
    )


class Prune(PassOptions):
    """Drop stages, resnets, attentions and transformer layers of a UNet; what stays keeps its weights.

    The result is a plain UNet2DConditionModel. It is not trained here: without distillation its pictures are noise. What
    `depth-skip` leaves is the exception: it runs from zeros in the place of what is gone, which diffusers has no class for, and
    pipelines that change a picture are to do without training.
    """

    kind: ClassVar[Kind] = "network"

    preset: (
        Literal[
            "bk-sdm-base", "bk-sdm-small", "bk-sdm-tiny", "koala-1b", "koala-700m", "ssd-1b", "vega", "sdxs", "sdxs-0.9",
            "depth-skip",
        ]
        | None
    ) = Field(default=None, description="a published cut, as a rule that fits other UNets too")  # fmt: skip
    depth: int | None = Field(
        default=None, ge=1, description="of depth-skip: input blocks that stay, counted from conv_in; 12 of SD 1.5 are all"
    )
    blocks: dict[str, Block | None] | None = Field(
        default=None, description="block → what stays of it: down_blocks.0, up_blocks.2, mid_block; null where nothing does"
    )
    search: Search | None = Field(default=None, description="find the pieces on the source's recorded trajectories")
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
        if self.preset == _SKIPS and self.depth is None:
            raise ValueError("preset depth-skip needs a depth, how many input blocks stay, such as depth: 9")
        if self.preset != _SKIPS and self.depth is not None:
            raise ValueError(f"depth {self.depth} has no effect without preset: depth-skip; leave it out")
        if self.weights == "kept" and self.seed:
            raise ValueError("seed has no effect where weights are kept; leave it out, or set weights: random")
        return self

    @property
    def recorded(self) -> bool:
        """A search compares with what the source did."""
        return self.search is not None

    @property
    def summary(self) -> str:
        """The pass and what chose."""
        found = self.search and f"found for {self.search.budget:.0%} of the {self.search.of}"
        depth = f" at depth {self.depth}" if self.depth else ""
        return f"prune: {self.preset or found or 'a block map'}{depth}{', random weights' * (self.weights == 'random')}"

    def moved(self, source: Mapping[str, Any], metadata: Mapping[str, Any]) -> Mapping[str, str]:
        """Prefix of a module in the smaller network → prefix in the source."""
        return origin(self._found(source, metadata) if self.search else self._cut(source))

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Config of the smaller network; None before a search.

        Raises:
            UnsupportedError: the preset does not fit this UNet, a block is not there, or diffusers' config cannot say the result.

        """
        if self.search:
            whole(source)
            return None
        return config(source, self._cut(source))

    def __call__(self, part: Part) -> Part:
        """Cut the part's network, with its own tensors, unless new ones are asked for.

        Raises:
            UnsupportedError: as for `config`; or nothing that can go meets a search's budget.

        """
        from exporter.pruning.surgery import carry_out, drawn_anew  # noqa: PLC0415 - torch

        network, metadata = part.network, part.metadata
        if self.search:
            from exporter.pruning.search import search  # noqa: PLC0415 - torch

            found = search(part, self.search.budget, self.search.of, self.search.calls)
            cut, metadata = found.cut, (*metadata, ("prune", found.metadata))
        else:
            cut = self._cut(network.config)
        before = sum(value.numel() for value in network.parameters())
        made = carry_out(network, cut) if self.weights == "kept" else drawn_anew(network, cut, self.seed)
        after = sum(value.numel() for value in made.parameters())
        note = f"{part.name}: {self.summary} keeps {after:,} of {before:,} parameters ({after / before:.1%})"
        if self.search:
            note += f"; as a block map: {json.dumps(dict(metadata)['prune']['blocks'])}"
        return replace(part.replacing(made), notes=(*part.notes, note), metadata=metadata)

    def _found(self, source: Mapping[str, Any], metadata: Mapping[str, Any]) -> Cut:
        said = {name: None if block is None else Block.model_validate_json(json.dumps(block)) for name, block in
                metadata["blocks"].items()}  # fmt: skip
        return chosen(whole(source), said)

    def _cut(self, source: Mapping[str, Any]) -> Cut:
        everything = whole(source)
        if self.blocks is not None:
            return chosen(everything, self.blocks)
        if self.depth is not None:
            return depth_skip(everything, self.depth)
        return PRESETS[str(self.preset)](str(self.preset), everything)
