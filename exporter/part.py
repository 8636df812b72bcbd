"""A part: one wrapped network of the pipeline, its signature, and what it was seen to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

    from engines.bundle import Role
    from engines.signature import Signature
    from exporter.recording import Case

Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class Part:
    """A network under its uniform contract.

    Attributes:
        name: the recipe's name for it (`unet`, `vae_decoder` …).
        role: what the run-time pipeline does with it.
        module: in eval mode; takes the signature's inputs as flat positional tensors, float32 or int64, and returns
            one float32 tensor per output port (a tuple when there are several).
        signature: ports, and ranges of the named dimensions.
        precision: the type that weights and arithmetic have inside.
        single: steps of its trace that compute in float32 all the same, as `islands.find` names them.
        cases: recorded calls.
        notes: what the passes have to say to whoever reads the bundle, a sentence each.
        findings: what a pass found out, as JSON holds it, by the pass's name; it travels in the bundle.

    """

    name: str
    role: Role
    module: nn.Module
    signature: Signature
    precision: Precision = "fp32"
    single: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[tuple[str, Any], ...] = ()

    @property
    def network(self) -> Any:  # noqa: ANN401 - diffusers' or transformers' model
        """The library's own model inside the wrapper."""
        return getattr(self.module, self._place)

    def having(self, network: nn.Module) -> Part:
        """The part with another network inside the same wrapper, which is taken over."""
        setattr(self.module, self._place, network)
        return replace(self)

    @property
    def _place(self) -> str:
        return next(name for name, child in self.module.named_children() if hasattr(child, "config"))
