"""Around a trace: code keeps nothing of it, and what it asks of other devices leaves no mark in the graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

#: Whose objects keep what their code makes once, such as tables of positions.
_KEEPERS = ("diffusers.", "transformers.")


@contextmanager
def isolated(module: nn.Module) -> Iterator[None]:
    """Trace a module within it.

    Objects of networks keep tables that they make when they are first called, here of tensors that only the trace has: those are
    forgotten at the end. `autocast` of another device than the one that is traced on would make a graph within the graph.
    """
    kept = [(own, dict(own)) for own in _states(module)]
    autocast: Any = torch.autocast
    enters, exits = autocast.__enter__, autocast.__exit__

    def enter(self: Any) -> Any:  # noqa: ANN401 - torch's
        return enters(self) if self.device == "cpu" else self

    def leave(self: Any, *error: object) -> Any:  # noqa: ANN401
        return exits(self, *error) if self.device == "cpu" else False

    autocast.__enter__, autocast.__exit__ = enter, leave
    try:
        yield
    finally:
        autocast.__enter__, autocast.__exit__ = enters, exits
        for own, before in kept:
            own.clear()
            own.update(before)


def _states(module: nn.Module) -> Iterator[dict[str, Any]]:
    """Attributes of the objects that modules have and that are no modules; torch itself looks after those of modules."""
    for value in (value for each in module.modules() for value in vars(each).values()):
        if type(value).__module__.startswith(_KEEPERS) and hasattr(value, "__dict__") and not isinstance(value, nn.Module):
            yield vars(value)
