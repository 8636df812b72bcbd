"""Text parts, unrolled sampler and decoder as one graph: token ids and noise in, picture out.

The graphs that were exported part by part are copied into one, the denoiser once per evaluation, with the sampler's coefficients
and times as constants. Weights are not copied: every copy of a network reads the same tensors, and they stay in the files in
which they lie. Then graph passes find what the steps share, such as the keys and values of the text, and compute what depends
on the time alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript.optimizer import fold_constants_ir

from engines import plugins
from engines.errors import UnsupportedError
from engines.guidance import BRANCHES, Guidance
from engines.samplers.table import Draw, Emit, Eval, Scaled, Table
from exporter.part import DEEP

if TYPE_CHECKING:
    from engines.signature import Signature

#: Elements up to which a constant is computed here. What depends on the time alone is below; weights are above, and a folded
#: weight would be one per step.
FOLDED = 2**15


def unroll(
    text: Mapping[str, ir.Model],
    denoiser: tuple[str, ir.Model],
    decoder: tuple[str, ir.Model],
    table: Table,
    signature: Signature,
    guidance: Guidance,
    shallow: ir.Model | None = None,
) -> ir.Model:
    """Join the graphs of one pipeline, at the one size that its dimensions have.

    Args:
        text: graphs by part, each after those whose outputs it takes.
        denoiser: part and graph.
        decoder: part and graph.
        table: the sampler, which starts from noise.
        signature: of the result. Inputs: token ids by name; `noise`, float32 (batch, draws, C, H, W); scales of
            guidance, float32 (batch,). Output: `image`.
        guidance: which scales the denoiser takes, and which branches.
        shallow: the denoiser's outermost layers, of the same weights, where the table asks for them alone.

    Raises:
        UnsupportedError: a graph has control flow, or the table starts from a given latent.

    """
    sizes = signature.extent("typical")
    sheet = _GraphBuilder()
    values = {port.name: sheet.input(port.name, port.dtype, signature.shape(port, sizes)) for port in signature.inputs}
    for name, model in text.items():
        values |= sheet.copy(name, model, values)
    batch = signature.shape(signature.inputs[0], sizes)[0]
    history: list[ir.Value] = []
    draws, kept = 0, dict[str, ir.Value]()
    for op in table.ops:
        match op:
            case Draw():
                history.append(sheet.node("Gather", [values["noise"], sheet.constant(np.int64(draws))], axis=1))
                draws += 1
            case Eval():
                known = {"latent": sheet.mix(op.row, history), "timestep": sheet.constant(np.full(batch, op.t, np.float32))}
                part, network = denoiser[0], shallow if op.shallow and shallow is not None else denoiser[1]
                known |= sheet.steered(network, values | kept, op.guided, guidance)
                answer, *left = sheet.copy(part, network, values | kept | known).items()
                history.append(answer[1])
                kept = kept if op.shallow else dict(left)
            case Emit():
                values |= sheet.copy(*decoder, {"latent": sheet.mix(op.row, history)})
            case Scaled():
                raise UnsupportedError("a sampler that corrects by norms cannot be fused. Set pipeline: stepped.")
            case _:
                raise UnsupportedError("a sampler that starts from a given picture cannot be fused. Set pipeline: stepped.")
    model = sheet.model([values[port.name] for port in signature.inputs], [values[port.name] for port in signature.outputs])
    return _tightened(model)


@dataclass
class _GraphBuilder:
    """A graph in the making."""

    nodes: list[ir.Node] = field(default_factory=list)
    weights: dict[str, ir.Value] = field(default_factory=dict)
    copies: int = 0
    opsets: dict[str, int] = field(default_factory=dict)

    def input(self, name: str, dtype: str, shape: Sequence[int]) -> ir.Value:
        kind = {"float32": ir.DataType.FLOAT, "int64": ir.DataType.INT64}[dtype]
        return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))

    def constant(self, array: np.ndarray | np.generic) -> ir.Value:
        name = f"constant_{len(self.weights)}"
        return self._weight(name, ir.tensor(np.asarray(array), name=name))

    def node(self, op: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:  # noqa: ANN401 - ONNX attributes
        node = ir.node(op, inputs, attributes=attributes)
        self.nodes.append(node)
        node.outputs[0].name = f"{op.lower()}_{len(self.nodes)}"
        return node.outputs[0]

    def mix(self, row: Sequence[float], history: Sequence[ir.Value]) -> ir.Value:
        """Sum of coefficient times latent, in the order in which the player sums."""
        terms = [
            self.node("Mul", [latent, self.constant(np.float32(factor))])
            for factor, latent in zip(row, history, strict=False)
            if factor
        ]
        mixed = terms[0] if terms else self.node("Sub", [history[0], history[0]])
        for term in terms[1:]:
            mixed = self.node("Add", [mixed, term])
        return mixed

    def steered(
        self, model: ir.Model, values: Mapping[str, ir.Value], share: float | None, guidance: Guidance
    ) -> dict[str, ir.Value]:
        """What a denoiser takes where a share of the guidance counts, None being all: its scales, and branches of the text."""
        found = dict[str, ir.Value]()
        for scale in guidance.scales if share is not None else ():
            if scale.off is not None:
                off = self.constant(np.float32(scale.off))
                excess = self.node("Mul", [self.node("Sub", [values[scale.name], off]), self.constant(np.float32(share))])
                found[scale.name] = self.node("Add", [off, excess])
        ports = {str(value.name): value.shape for value in model.graph.inputs}
        open_ones = [name for name, shape in ports.items() if shape is not None and len(shape) > 1 and str(shape[1]) == BRANCHES]
        if share == 0 and all(scale.off is not None for scale in guidance.scales):
            last = [self.constant(np.array([bound], np.int64)) for bound in (-1, 2**31, 1)]
            return found | {name: self.node("Slice", [values[name], *last]) for name in open_ones}
        if guidance.rows > guidance.branches:  # the perturbed one, always: its scale is known when the graph runs
            rows = self.constant(np.array([guidance.branches - 1, *range(guidance.branches)], np.int64))
            texts = [name for name in open_ones if name != DEEP]
            found |= {name: self.node("Gather", [values[name], rows], axis=1) for name in texts}
        return found

    def copy(self, part: str, model: ir.Model, values: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        """Copy one part's nodes, fed by name; its weights are shared by all copies. Returns its outputs by name."""
        self.copies += 1
        self.opsets |= model.opset_imports
        mapped: dict[ir.Value | None, ir.Value | None] = {None: None}
        mapped |= {value: values[str(value.name)] for value in model.graph.inputs}
        mapped |= {
            value: self._weight(f"{part}.{name}", value.const_value)
            for name, value in model.graph.initializers.items()
            if value.const_value is not None
        }
        for node in model.graph:
            if any(attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for attribute in node.attributes.values()):
                raise UnsupportedError(f"{part} has control flow ({node.op_type}), which cannot be fused. Set pipeline: stepped.")
            own = ir.Node(
                node.domain,
                node.op_type,
                [mapped[value] for value in node.inputs],
                list(node.attributes.values()),
                num_outputs=len(node.outputs),
                version=node.version,
            )
            for old, new in zip(node.outputs, own.outputs, strict=True):
                new.name, new.type, new.shape = f"{part}_{self.copies}.{old.name}", old.type, old.shape and old.shape.copy()
                mapped[old] = new
            self.nodes.append(own)
        found = {str(value.name): mapped[value] for value in model.graph.outputs}
        return {name: value for name, value in found.items() if value is not None}

    def model(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
        outputs[0].name = "image"
        weights = list(self.weights.values())
        graph = ir.Graph(inputs, outputs, nodes=self.nodes, initializers=weights, opset_imports=self.opsets, name="pipeline")
        return ir.Model(graph, ir_version=10)

    def _weight(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        if name not in self.weights:
            shape = ir.Shape(tensor.shape.numpy())
            self.weights[name] = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        return self.weights[name]


def _tightened(model: ir.Model) -> ir.Model:
    """Share what the steps have in common, and compute what is constant."""
    passes = plugins.load("graph", "deduplicate"), plugins.load("graph", "remove_unused")
    for _ in range(2):  # a constant time makes constants of what follows it only once shapes before it are known
        fold_constants_ir(model, onnx_shape_inference=True, should_fold=_small, input_size_limit=2**62, output_size_limit=FOLDED)
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        for each in passes:
            model = each(model)
    return model


def _small(node: ir.Node) -> bool | None:
    """Whether folding a node cannot make a large constant; None leaves it to the pass."""
    shapes = [value.shape for value in node.outputs]
    sized = all(shape is not None and shape.is_static() and int(np.prod(shape.numpy())) <= FOLDED for shape in shapes)
    return None if sized else False
