"""What a pass says of itself unless it says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from engines.strict import Frozen

if TYPE_CHECKING:
    from engines.backends import Backend
    from exporter.recipe.purpose import ModelPurpose


class PassOptions(Frozen):
    """Options of a pass that makes no other network, needs nothing but the part, and leaves every module where it is."""

    remakes: ClassVar[bool] = False
    swaps: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    @property
    def recorded(self) -> bool:
        """It needs no recording."""
        return False

    @property
    def made(self) -> ModelPurpose | None:
        """Any sampler that suited the network still does."""
        return None

    def moved(self, source: Mapping[str, Any], findings: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: ARG002 - the protocol's
        """Every module stays where it is."""
        return {}

    def suits(self, part: str, targets: Mapping[str, Backend]) -> None:
        """It pays on every backend."""
