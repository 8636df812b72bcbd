"""Which layers a network cannot do without: each is quantized alone, and the network's output compared.

One graph is loaded in which every layer stands once in each of its forms, as it was and quantized, behind Ifs; an input says
which is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import onnx_ir as ir

from engines.signature import Port, Signature
from exporter.onnx.layers import layers
from exporter.parity.metrics import PERFECT, psnr
from exporter.quantization.observer import opened
from exporter.quantization.qdq import NodeWriter, named

if TYPE_CHECKING:
    from exporter.onnx.layers import Layer
    from exporter.part import Case
    from exporter.quantization.calibration import Spec

_SWITCHES = "switches"
#: A layer, and how far it goes: 1 is the first of its forms, with 0 it would be as it was.
Move = tuple[str, int]


class Scan:
    """A loaded network whose layers can be quantized by name.

    Args:
        graph: ONNX file, its weights beside it.
        forms: layer → the ways in which it can be quantized, each coarser than the one before.
        cases: calls to compare at.
        signature: of the graph.
        work: an empty folder on the same disk.
        block: of 4-bit weights.

    """

    def __init__(
        self, graph: Path, forms: Mapping[str, Sequence[Spec]], cases: Sequence[Case], signature: Signature, work: Path,
        block: int,
    ) -> None:  # fmt: skip
        model = ir.load(graph)
        self._forms, self._cases = forms, cases
        _switch(model, [layer for layer in layers(model) if layer.name in forms], forms, block)
        port = Port(name=_SWITCHES, dtype="int64", shape=(len(forms),))
        self._engine = opened(model, graph, signature.model_copy(update={"inputs": (*signature.inputs, port)}), work)
        self._plain = [self._run(case, ()) for case in cases]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._engine.__exit__(kind, error, traceback)

    def error(self, moves: Iterable[Move]) -> float:
        """PSNR in dB of the network's outputs with these moves made, against none: the worst of the calls."""
        made, worst = tuple(moves), PERFECT
        for case, plain in zip(self._cases, self._plain, strict=True):
            answer = self._run(case, made)
            worst = min(worst, *(psnr(answer[port], plain[port]) for port in plain))
        return worst

    def alone(self) -> dict[Move, float]:
        """Every move → `error` of it alone, in the graph's order."""
        moves = ((name, level) for name, forms in self._forms.items() for level in range(1, len(forms) + 1))
        return {move: round(self.error([move]), 2) for move in moves}

    def most(self, ranked: Sequence[Move], floor: float) -> tuple[int, float]:
        """How many of the moves, in this order, can be made together at an error of at least `floor`, and that error."""
        low, high, at = 0, len(ranked), PERFECT
        while low < high:
            middle = (low + high + 1) // 2
            found = self.error(ranked[:middle])
            if found >= floor:
                low, at = middle, found
            else:
                high = middle - 1
        return low, at

    def _run(self, case: Case, moves: Sequence[Move]) -> dict[str, np.ndarray]:
        levels = dict.fromkeys(self._forms, 0)
        for name, level in moves:
            levels[name] = max(levels[name], level)
        return self._engine({**case.inputs, _SWITCHES: np.array(list(levels.values()), np.int64)})


def _switch(model: ir.Model, found: Sequence[Layer], forms: Mapping[str, Sequence[Spec]], block: int) -> None:
    graph, order = model.graph, list(forms)
    given = ir.Value(name=_SWITCHES, shape=ir.Shape([len(order)]), type=ir.TensorType(ir.DataType.INT64))
    graph.inputs.append(given)
    for layer in found:
        node, source, weight = layer.node, layer.source, layer.weight
        before: Spec | None = None
        for level, spec in enumerate(forms[layer.name], start=1):
            # The forms of one layer need names of their own: two may scale one weight differently.
            writer = NodeWriter(model, block, mark := "" if level == 1 else f"form{level}.")
            name = f"{mark}{layer.name}"
            index = writer.constant(f"switch.{order.index(layer.name)}", np.array(order.index(layer.name), np.int64))
            picked = named("Gather", [given, index], f"{name}/switch")
            reached = named("GreaterOrEqual", [*picked.outputs, writer.constant("level", np.array(level))], f"{name}/taken")
            graph.insert_before(node, [picked, reached])
            taken = reached.outputs[0]

            nodes, quantized = writer.divided(layer, spec.factors) if spec.factors else ([], layer.source)
            if spec.activations and spec.range:
                more, quantized = writer.activation(quantized, spec.range, spec.activations, layer.dtype, f"{layer.name}.input")
                nodes += more
            if nodes:
                source = _either(graph, node, taken, nodes, quantized, source, name)
            if before is None or (before.weights, before.factors) != (spec.weights, spec.factors):
                nodes, quantized = writer.weight(layer, spec)
                weight = _either(graph, node, taken, nodes, quantized, weight, f"{name}.weight")
            if spec.output:
                _switch_output(graph, writer, layer, spec.output, taken)
            before = spec
        node.replace_input_with(0, source)
        node.replace_input_with(1, weight)


def _either(
    graph: ir.Graph, before: ir.Node, taken: ir.Value, nodes: list[ir.Node], quantized: ir.Value, plain: ir.Value, name: str
) -> ir.Value:
    """An If in front of a node: the quantized value, or the plain one."""
    same = named("Identity", [plain], f"{name}/same")
    branches = {
        "then_branch": ir.Graph([], [quantized], nodes=nodes, name=f"{name}/quantized"),
        "else_branch": ir.Graph([], same.outputs, nodes=[same], name=f"{name}/plain"),
    }
    chosen = named("If", [taken], f"{name}/if", **branches)
    graph.insert_before(before, [chosen])
    return chosen.outputs[0]


def _switch_output(graph: ir.Graph, writer: NodeWriter, layer: Layer, clip: float, taken: ir.Value) -> None:
    """The same behind a convolution, whose bias is added afterwards in both branches' sum."""
    node, made = layer.node, layer.node.outputs[0]
    uses, nodes, value = list(made.uses()), list[ir.Node](), made
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rounded, value = writer.activation(made, clip, "int8", layer.dtype, f"{layer.name}.output")
    same = named("Identity", [made], f"{layer.name}.output/same")
    branches = {
        "then_branch": ir.Graph([], [value], nodes=rounded, name=f"{layer.name}/output quantized"),
        "else_branch": ir.Graph([], same.outputs, nodes=[same], name=f"{layer.name}/output plain"),
    }
    nodes = [named("If", [taken], f"{layer.name}.output/if", **branches)]
    if bias is not None and bias.const_value is not None:
        array = bias.const_value.numpy()
        column = writer.constant(f"{layer.name}.bias.column", array.reshape(layer.column))
        node.replace_input_with(2, None)
        nodes.append(named("Add", [nodes[0].outputs[0], column], f"{layer.name}/bias"))
    graph.insert_after(node, nodes)
    for user, index in uses:
        user.replace_input_with(index, nodes[-1].outputs[0])
