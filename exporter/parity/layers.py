"""A graph seen at the values that two sides can be compared at: what each is made of, and by which nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from exporter.parity.module_names import WRAPPER, module_of

#: Operators whose result tells nothing of their input's numbers.
_SIZES = {"Shape", "Size"}
_REAL = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


class Layers:
    """A graph, and the values of it at which both sides are known.

    Attributes:
        model: the graph, with a type at every value.
        known: name → value, in the order in which they are computed; the graph's inputs are among them.

    """

    def __init__(self, model: ir.Model, modules: Mapping[str, str] | None = None) -> None:
        """See `model` at its inputs, its outputs and the values of which the module is told, or at all of them."""
        self.model = ShapeInferencePass()(model).model
        graph = self.model.graph
        wanted = None if modules is None else {*modules, *(value.name for value in graph.outputs)}
        made = (value for node in graph for value in node.outputs if value.name)
        kept = (value for value in made if wanted is None or value.name in wanted)
        self.known: dict[str, ir.Value] = {str(value.name): value for value in (*graph.inputs, *kept)}
        self._modules = modules or {}
        self._order = {node: place for place, node in enumerate(graph)}
        self._walked: dict[tuple[str, bool], tuple[list[str], list[ir.Node]]] = {}

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.known)}

    @property
    def inputs(self) -> list[str]:
        """Names of the graph's inputs."""
        return [str(value.name) for value in self.model.graph.inputs]

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs."""
        return [str(value.name) for value in self.model.graph.outputs]

    def is_real(self, name: str) -> bool:
        """Whether a known value holds real numbers, which are compared; sizes, indices and masks are not."""
        return self.known[name].dtype in _REAL

    def nodes(self, name: str) -> list[ir.Node]:
        """The nodes that make a known value of those that it is made of, in the graph's order; none of an input."""
        return sorted(self._walk(name, sizes=True)[1], key=self._order.__getitem__)

    def module(self, name: str) -> str:
        """The module of the source that makes a known value: as it was told, or as the nodes say; empty where nothing tells."""
        return (self._modules[name] or WRAPPER) if name in self._modules else module_of(self.nodes(name))

    def parents(self, name: str, *, sizes: bool = False) -> list[str]:
        """Known values that a known value is made of, the nearest; with `sizes` also those of which only the shape is read."""
        return self._walk(name, sizes=sizes)[0]

    def above(self, name: str) -> list[str]:
        """Every known real value that a known value depends on, in the order in which they are computed."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            new = set(self.parents(waiting.pop())) - found
            found |= new
            waiting += new
        return [each for each in sorted(found, key=self._places.__getitem__) if self.is_real(each)]

    def near(self, name: str, depth: int) -> list[str]:
        """A known value and those up to `depth` - 1 known values in front of it, without the graph's inputs."""
        inside, edge = {name}, {name}
        for _ in range(depth - 1):
            edge = {parent for each in edge for parent in self.parents(each, sizes=True)} - inside - set(self.inputs)
            inside |= edge
        return sorted(inside, key=self._places.__getitem__)

    def starts(self, inside: Sequence[str]) -> list[str]:
        """What a part of the graph, named by the values that it makes, is fed with."""
        return sorted({parent for each in inside for parent in self.parents(each, sizes=True)} - {*inside})

    def needed(self, inside: Sequence[str], end: str) -> list[str]:
        """Those of the values named of which `end`, one of them, is made within them."""
        found, waiting = {end}, [end]
        while waiting:
            new = (set(self.parents(waiting.pop(), sizes=True)) & {*inside}) - found
            found |= new
            waiting += new
        return [each for each in inside if each in found]

    def _walk(self, name: str, *, sizes: bool) -> tuple[list[str], list[ir.Node]]:
        if (name, sizes) not in self._walked:
            self._walked[name, sizes] = self._walk_back(self.known[name], sizes=sizes)
        return self._walked[name, sizes]

    def _walk_back(self, value: ir.Value, *, sizes: bool) -> tuple[list[str], list[ir.Node]]:
        starts: dict[str, None] = {}
        nodes: dict[ir.Node, None] = {}
        waiting = [value.producer()]
        while waiting:
            node = waiting.pop()
            if node is None or node in nodes:
                continue
            nodes[node] = None
            if node.op_type in _SIZES and not sizes:
                continue
            for given in _given(node):
                if self.known.get(str(given.name)) is given:
                    starts[str(given.name)] = None
                else:
                    waiting.append(given.producer())
        return list(starts), list(nodes)


def _given(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads that is no weight."""
    for value in node.inputs:
        if value is not None and not value.is_initializer():
            yield value
