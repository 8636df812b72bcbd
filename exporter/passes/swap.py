"""Replace a part's network by another checkpoint's: a tiny decoder such as TAESDXL, a UNet distilled elsewhere, a fresh one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from engines.errors import UnsupportedError
from exporter.models.compatibility import NetworkSource
from exporter.recipe.pass_options import Kind, PassOptions

if TYPE_CHECKING:
    from exporter.part import Part

__all__ = ["Swap"]


class Swap(NetworkSource, PassOptions):
    """Put another model's network of the same role in the place of the source's.

    It must live in the same latent space, read the same text and predict the same; what its config tells of that is compared.
    A VAE decoder may be of another class: its scaling and its range are its own, and stay inside the graph.
    """

    kind: ClassVar[Kind] = "swap"

    @model_validator(mode="after")
    def _found(self) -> Self:
        if self.fields and self.weights == "pretrained":
            raise ValueError("fields have no effect on pretrained weights, whose config lies beside them; set weights: random")
        if self.source is None and "_class_name" not in self.fields:
            raise ValueError(
                "nothing says which network; give source, or weights: random and fields with _class_name: AutoencoderTiny"
            )
        return self

    @property
    def summary(self) -> str:
        """The pass and the network."""
        name = self.source or self.fields["_class_name"]
        return f"swap: {name}{' with random weights' if self.weights == 'random' else ''}"

    def moved(self, source: Mapping[str, Any], metadata: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: ARG002 - the protocol's
        """Nothing in it comes from the source."""
        return {}

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any] | None:  # noqa: ARG002 - the protocol's
        """The source's config does not tell; `exporter.models.compatibility` does."""
        return None

    def __call__(self, part: Part) -> Part:
        """The network is not made from the part's; `exporter.models.compatibility` finds it."""
        raise UnsupportedError(f"swap of {part.name} needs the other network's files.\n  Build it.")
