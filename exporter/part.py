"""A part: one wrapped network of the pipeline, its signature, and what it was seen to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from engines.bundle import Role
    from engines.signature import Signature

Precision = Literal["fp32", "fp16", "bf16"]


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
    inputs: Mapping[str, np.ndarray]
    source: Mapping[str, np.ndarray]
    passes: Mapping[str, np.ndarray] = field(default_factory=dict)


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
        cases: recorded calls.

    """

    name: str
    role: Role
    module: nn.Module
    signature: Signature
    precision: Precision = "fp32"
    cases: tuple[Case, ...] = ()
