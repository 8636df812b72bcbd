"""One graph pass per file: onnx_ir.Model → onnx_ir.Model, with the graph's meaning unchanged. Each says where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, Literal, Protocol

from engines import plugins

if TYPE_CHECKING:
    import onnx_ir as ir

#: `always`; `cpu`: where every engine of the graph runs on a CPU; `fused`: where every engine's backend names it in its `fused`,
#: since it makes operators that other libraries lack; it then stands behind all others.
When = Literal["always", "cpu", "fused"]


class GraphPass(Protocol):
    """A function on a model; it may edit in place, and returns the model to go on with.

    Attributes:
        when: which graphs get it.
        after: names of those that it stands behind, where they are there.
        before: names of those that it stands in front of.

    """

    when: When
    after: tuple[str, ...]
    before: tuple[str, ...]

    def __call__(self, model: ir.Model) -> ir.Model:
        """Transform."""
        ...


def placed(
    when: When = "always", *, after: Sequence[str] = (), before: Sequence[str] = ()
) -> Callable[[Callable[[ir.Model], ir.Model]], GraphPass]:
    """Say of a function which graphs get it, and where it stands among the other passes."""

    def place(function: Any) -> GraphPass:  # noqa: ANN401 - a function has no such attributes yet
        function.when, function.after, function.before = when, tuple(after), tuple(before)
        return function

    return place


def order(*, processor: bool, fused: Sequence[str], more: Mapping[str, GraphPass] | None = None) -> list[GraphPass]:
    """The passes that an exported graph gets, in their order, those of the same place by name.

    Args:
        processor: whether all its engines run on a CPU.
        fused: passes into operators that its engines all have, in their order.
        more: passes of this one graph, by name.

    """
    every: dict[str, GraphPass] = plugins.known("graph") | dict(more or {})
    wanted = {name: each for name, each in every.items() if each.when == "always" or (each.when == "cpu" and processor)}
    behind = {name: {*each.after} & wanted.keys() for name, each in wanted.items()}
    for name, each in wanted.items():
        for other in {*each.before} & wanted.keys():
            behind[other].add(name)
    sorter, names = TopologicalSorter(behind), list[str]()
    sorter.prepare()
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        names += ready
        sorter.done(*ready)
    return [every[name] for name in (*names, *fused)]
