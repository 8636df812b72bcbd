"""What a task asks of its machine: CPUs, memory, and a GPU of a compute capability."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from engines.strict import Frozen
from exporter.cluster.sizes import size

_CAPABILITY = re.compile(r"\d+\.\d")


def _size(text: str) -> str:
    size(text)
    return text


def _capability(text: str) -> str:
    if _CAPABILITY.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no compute capability; write such as '8.9' (Ada) or '9.0' (Hopper)")
    return text


class Resources(Frozen):
    """What a point asks of a machine, at least. What is left out may be anything."""

    cpus: int | None = Field(default=None, ge=1, description="that a build has; a measurement has all of a machine")
    memory: Annotated[str, AfterValidator(_size)] | None = Field(default=None, description="such as 16 GB")
    gpu: Annotated[str, AfterValidator(_capability)] | None = Field(
        default=None, description="compute capability of a GPU that is the point's own: '8.9' for Ada, '9.0' for Hopper"
    )

    @property
    def bytes(self) -> int:
        """The memory; 0 where none is asked for."""
        return int(size(self.memory)) if self.memory else 0

    def __str__(self) -> str:
        """In words, for messages."""
        told = [
            *([f"{self.cpus} CPUs"] if self.cpus else []),
            *([f"{self.memory} of memory"] if self.memory else []),
            *([f"a GPU of compute capability {self.gpu}"] if self.gpu else []),
        ]
        return " and ".join(told) or "any machine"


#: Of a machine, nothing in particular.
ANYTHING = Resources()
