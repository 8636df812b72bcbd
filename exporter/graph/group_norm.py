"""Group normalization, with the SiLU behind it, as com.microsoft's GroupNorm: one kernel of ONNX Runtime's CUDA provider."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from exporter.graph import placed
from exporter.graph._match import made_by, only_user

__all__ = ["group_norm"]

_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
#: Channels of one group that the kernel takes: an even number, as each thread has two, and no more than a block has.
_PAIR, _BLOCK = 2, 512


@placed("fused")
def group_norm(model: ir.Model) -> ir.Model:
    """Replace what torch's exporter writes for a group norm of pictures: five nodes, or seven with SiLU.

    The kernel takes channels last, so that each is put between two transposes; where convolutions take channels last too, they
    cancel. There is no such kernel for processors: a graph that went through this runs on CUDA alone. Norms whose groups have a
    number of channels that the kernel refuses (LaunchGroupNormKernel in onnxruntime) stay as they are.
    """
    for node in list(model.graph):
        if node.op_type == "InstanceNormalization":
            _replace(model.graph, node)
    if any(node.domain == "com.microsoft" for node in model.graph):
        model.graph.opset_imports["com.microsoft"] = 1
    RemoveUnusedNodesPass()(model)
    return model


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    grouped, back = made_by(node.inputs[0], "Reshape"), only_user(node.outputs[0], "Reshape")
    scaled = only_user(back.outputs[0], "Mul") if back else None
    shifted = only_user(scaled.outputs[0], "Add") if scaled else None
    groups = node.inputs[1].shape if node.inputs[1] is not None else None
    if grouped is None or scaled is None or shifted is None or groups is None or not groups.is_static():
        return
    weight, bias = _constant(scaled), _constant(shifted)
    if weight is None or bias is None or [weight.shape[1:], bias.shape[1:]] != [(1, 1)] * 2:  # another rank than a picture's
        return
    count = groups.numpy()[0]
    channels, rest = divmod(weight.size, count)
    if rest or channels % _PAIR or channels > _BLOCK:
        return
    activated = _activated(shifted)
    last = activated if activated is not None else shifted
    turned = ir.node("Transpose", [grouped.inputs[0]], {"perm": _LAST})
    name = str(last.outputs[0].name)
    gamma, beta = (_float32(graph, array, f"{name}_{what}") for array, what in ((weight, "gamma"), (bias, "beta")))
    attributes = {
        "epsilon": node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5,
        "groups": count,
        "activation": int(activated is not None),
        "channels_last": 1,
    }
    made = ir.node("GroupNorm", [turned.outputs[0], gamma, beta], attributes, domain="com.microsoft")
    restored = ir.node("Transpose", [made.outputs[0]], {"perm": _FIRST})
    result, dtype = last.outputs[0], last.outputs[0].dtype
    for each, word in ((turned, "last"), (made, "norm"), (restored, "first")):
        each.outputs[0].name = f"{name}_{word}"
        if dtype is not None:
            each.outputs[0].dtype = dtype
    restored.outputs[0].shape = result.shape
    graph.insert_before(last, [turned, made, restored])
    result.replace_all_uses_with(restored.outputs[0], replace_graph_outputs=True)


def _constant(node: ir.Node) -> np.ndarray | None:
    value = node.inputs[1]
    return value.const_value.numpy() if value is not None and value.const_value is not None else None


def _activated(node: ir.Node) -> ir.Node | None:
    """The product with its own sigmoid, where that is all that the result is used for."""
    users = [user for user, _ in node.outputs[0].uses()]
    gates = [user for user in users if user.op_type == "Sigmoid"]
    if len(users) != 2 or len(gates) != 1:
        return None
    (other,) = (user for user in users if user is not gates[0])
    both = {id(value) for value in other.inputs}
    return other if other.op_type == "Mul" and both == {id(node.outputs[0]), id(gates[0].outputs[0])} else None


def _float32(graph: ir.Graph, array: np.ndarray, name: str) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(array.reshape(-1).astype(np.float32)), name=name)
    value = ir.Value(name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    graph.register_initializer(value)
    return value
