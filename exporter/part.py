"""A part: one wrapped network of the pipeline, its signature, and what it was seen to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from engines.bundle import Role
    from engines.signature import Signature

Precision = Literal["fp32", "fp16", "bf16"]
#: Among the inputs of a case with LoRAs: how strongly its items have each, float32 (LoRAs, items).
LORA_SCALES = "lora_scales"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One recorded call of a part: what the source pipeline fed it, and what came out.

    Attributes:
        label: where on the trajectory, at which size, batch and guidance, in words for the blame table.
        inputs: float32 or int64 arrays by input port.
        source: outputs of the source model, by output port.
        passes: outputs of the part after its passes and precision, by output port; empty until measured.

    """

    label: str
    inputs: Arrays
    source: Arrays
    passes: Arrays = field(default_factory=dict)


def joined(first: Case, second: Case) -> Case:
    """Two cases as one batch."""
    sides = {side: getattr(first, side) for side in ("inputs", "source", "passes")}
    both = {
        side: {name: np.concatenate([array, getattr(second, side)[name]]) for name, array in arrays.items()}
        for side, arrays in sides.items()
    }
    return Case(first.label, **both)


def divided(case: Case, most: int) -> Iterator[Case]:
    """A case in batches of at most so many."""
    count = len(next(iter(case.inputs.values())))
    for start in range(0, count, most):
        own = slice(start, start + most)
        inputs, source, passes = (
            {name: array[own] for name, array in getattr(case, side).items()} for side in ("inputs", "source", "passes")
        )
        told = f", from the {start + 1}. of {count}" if count > most else ""
        yield Case(f"{case.label}{told}", inputs, source, passes)


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
        metadata: what a pass found out, as JSON holds it, by the pass's name; it travels in the bundle.

    """

    name: str
    role: Role
    module: nn.Module
    signature: Signature
    precision: Precision = "fp32"
    single: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    notes: tuple[str, ...] = ()
    metadata: tuple[tuple[str, Any], ...] = ()

    @property
    def network(self) -> Any:  # noqa: ANN401 - diffusers' or transformers' model
        """The library's own model inside the wrapper."""
        return getattr(self.module, self._place)

    def replacing(self, network: nn.Module) -> Part:
        """The part with another network inside the same wrapper, which is taken over."""
        setattr(self.module, self._place, network)
        return replace(self)

    @property
    def _place(self) -> str:
        return next(name for name, child in self.module.named_children() if hasattr(child, "config"))
