"""What a pass says of itself unless it says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from engines.strict import Frozen

if TYPE_CHECKING:
    from engines.backends import Backend
    from exporter.recipe.purpose import ModelPurpose


#: What a pass works on. `weights`: the module, whenever it is loaded; it goes on computing the same. Those that remake give
#: another network: `network` makes it of the one that is there, `swap` takes it from elsewhere, `training` teaches it. `graph`:
#: the exported graph, as `quantize` does.
Kind = Literal["weights", "network", "swap", "training", "graph"]
REMAKING: frozenset[Kind] = frozenset({"network", "swap", "training"})


class PassOptions(Frozen):
    """Options of a pass that makes no other network, needs nothing but the part, and leaves every module where it is."""

    kind: ClassVar[Kind] = "weights"

    @property
    def recorded(self) -> bool:
        """It needs no recording."""
        return False

    @property
    def summary(self) -> str:
        """The pass, as recipes name it."""
        return type(self).__module__.rpartition(".")[2]

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The same config."""
        return dict(source)

    @property
    def purpose(self) -> ModelPurpose | None:
        """Any sampler that suited the network still does."""
        return None

    def moved(self, source: Mapping[str, Any], metadata: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: ARG002 - the protocol's
        """Every module stays where it is."""
        return {}

    def suits(self, part: str, targets: Mapping[str, Backend]) -> None:
        """It pays on every backend."""
