"""Have the self-attention of a UNet's finest resolutions see its own region whole and the rest merged, without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from exporter.pruning.grouping import grouped, regrouped
from exporter.recipe.pass_options import Kind, PassOptions

if TYPE_CHECKING:
    from exporter.part import Part

__all__ = ["RegionalAttention"]


class RegionalAttention(PassOptions):
    """Divide the map into regions: each token sees those of its own region, and the means of squares of the whole map.

    A-SDM (arXiv 2312.15516) names an attention between what is global and what is regional, and its details were not published:
    this is our own reading of the name.
    """

    kind: ClassVar[Kind] = "network"

    regions: int = Field(default=2, ge=2, le=8, description="along each side of the map")
    side: int = Field(default=4, ge=2, le=16, description="tokens along each side of a square whose mean stands for it")
    levels: int = Field(default=1, ge=1, description="of the resolutions that have attention, so many from the finest")

    @property
    def summary(self) -> str:
        """The pass, its regions and its squares."""
        return f"regional_attention: {self.regions} x {self.regions} regions, squares of {self.side} x {self.side}"

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        """Config of the network that sees regions.

        Raises:
            UnsupportedError: it is no plain UNet, or has not so many resolutions with attention.

        """
        return grouped(source, "regional_attention", merge=self.side, regions=self.regions, levels=self.levels)

    def __call__(self, part: Part) -> Part:
        """The same weights in the network that sees regions; raise as `config` does."""
        return regrouped(part, self.config(part.network.config), self.summary)
