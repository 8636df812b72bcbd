"""Have the self-attention of a UNet's finest resolutions see squares of tokens as one, without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from exporter.pruning.grouping import grouped, regrouped
from exporter.recipe.pass_options import Kind, PassOptions

if TYPE_CHECKING:
    from exporter.part import Part

__all__ = ["MergeTokens"]


class MergeTokens(PassOptions):
    """Make one key and one value of every square of neighbouring tokens, their mean; each token still asks for itself.

    Which tokens are merged depends on where they are and on nothing else, so that the graph is fixed. The product of queries and
    keys shrinks by the square of `side`. After ToDo, Token Downsampling for Efficient Generation of High-Resolution Images
    (arXiv 2402.13573), which takes a square's first token.
    """

    kind: ClassVar[Kind] = "network"

    side: int = Field(default=2, ge=2, le=8, description="tokens along each side of a square")
    levels: int = Field(default=1, ge=1, description="of the resolutions that have attention, so many from the finest")

    @property
    def summary(self) -> str:
        """The pass and its squares."""
        return f"merge_tokens: squares of {self.side} x {self.side}"

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        """Config of the network with merged keys.

        Raises:
            UnsupportedError: it is no plain UNet, or has not so many resolutions with attention.

        """
        return grouped(source, "merge_tokens", merge=self.side, regions=1, levels=self.levels)

    def __call__(self, part: Part) -> Part:
        """The same weights in the network with merged keys; raise as `config` does."""
        return regrouped(part, self.config(part.network.config), f"{self.summary} as keys")
