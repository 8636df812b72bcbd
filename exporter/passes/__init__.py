"""One torch pass per file: Part → Part. A pass's options are its constructor, its schema and its cache key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from engines.backends import Backend
    from exporter.part import Part
    from exporter.recipe.pass_options import Kind
    from exporter.recipe.purpose import ModelPurpose


class Pass(Protocol):
    """Frozen options; the call returns a new part, and may take over the old one's module.

    A pass that remakes gives another network, which computes something else on purpose. It is called once, in
    fp32; its network is kept as diffusers would save it, and every later stage starts from there: the comparison with the source
    is reported and not limited, and the pictures are held to the pipeline that has the new network. The other passes stand
    behind those that remake. One that pays on some backends alone has `suits(part, targets)`, which raises UnsupportedError where
    none of the targets is among them.

    Attributes:
        kind: `network`, `swap` or `training` for a pass that remakes. One that swaps takes a network from elsewhere, which
            `models.compatibility` finds: it is neither called nor asked for a config. One that trains teaches the new network
            what the source does: it has `teach(part, lesson)`, which is called instead. `weights`: it is called whenever the part
            is loaded. `graph`: it works on the exported graph, and has what `quantize` has.
        recorded: whether it must see `part.cases`: the calls of the source on whole trajectories.
        purpose: what kind of model it makes the denoiser, by which samplers are judged; None where that stays as it is.
        summary: name and options, as the blame table shows them.

    """

    @property
    def kind(self) -> Kind: ...  # noqa: D102 - above
    @property
    def recorded(self) -> bool: ...  # noqa: D102
    @property
    def purpose(self) -> ModelPurpose | None: ...  # noqa: D102
    @property
    def summary(self) -> str: ...  # noqa: D102

    def moved(self, source: Mapping[str, Any], metadata: Mapping[str, Any]) -> Mapping[str, str]:
        """Prefix of a module's name in the network that it makes → prefix in the source, the longest counts; empty for none.

        Args:
            source: config of the source's network.
            metadata: what the pass found out when it ran.

        """
        ...

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Config of the network that it makes of one with that config, None where only the call can tell; imports no torch.

        Raises:
            UnsupportedError: it cannot make one, and what would help.

        """
        ...

    def suits(self, part: str, targets: Mapping[str, Backend]) -> None:
        """Raise UnsupportedError where it pays on some backends alone, and none of the part's targets is among them."""
        ...

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """The options by name; with mode "json", as JSON holds them."""
        ...

    def __call__(self, part: Part) -> Part:
        """Transform a part."""
        ...
