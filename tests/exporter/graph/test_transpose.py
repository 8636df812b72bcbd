import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnx_ir as ir
import pytest

from exporter.graph.remove_unused import remove_unused
from exporter.graph.transpose import transpose

SLICES = ["s = Shape(t)", "rest = Slice(s, least, m2)", "rows = Slice(s, m2, m1)", "columns = Slice(s, m1, most)"]
FLAT = "flat = Concat<axis = 0>(m1, rows, columns)"
BACK = "back = Concat<axis = 0>(rest, columns, rows)"
TURNED = ["a = Reshape(t, flat)", "b = Transpose<perm = [0, 2, 1]>(a)", "y = Reshape(b, back)"]
BEFORE = "t = Transpose<perm = [0, 2, 1, 3]>(x)"
BOUNDS = {"least": -(2**63), "m2": -2, "m1": -1, "most": 2**63 - 1}


def graph(*body):
    """x (B, 5, 2, 4) → t (B, 2, 5, 4), and y, in dynamic shapes as torch's exporter writes them."""
    text = '<ir_version: 10, opset_import: ["" : 20]> agraph (float[b, 5, 2, 4] x) => (float[b, p, q, r] y)\n'
    text += f"<{', '.join(f'int64[1] {name} = {{{bound}}}' for name, bound in BOUNDS.items())}> {{\n"
    return ir.from_proto(onnx.parser.parse_model(text + "\n".join(body) + "\n}"))


def run(model):
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    x = np.random.default_rng(0).standard_normal((3, 5, 2, 4), np.float32)
    return onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})[0]


def test_fifteen_nodes_become_one_that_moves_the_same_numbers():
    body = (BEFORE, *SLICES, FLAT, BACK, *TURNED)
    changed = remove_unused(transpose(graph(*body)))
    assert [node.op_type for node in changed.graph] == ["Transpose", "Transpose"]
    found = run(changed)
    assert found.shape == (3, 2, 4, 5)
    np.testing.assert_array_equal(found, run(graph(*body)))


@pytest.mark.parametrize(
    "body",
    [
        ("t = Identity(x)", *SLICES, FLAT, BACK, *TURNED),
        (BEFORE, *SLICES, FLAT, "back = Concat<axis = 0>(rest, rows, columns)", *TURNED),
        (BEFORE, *SLICES, "flat = Concat<axis = 0>(m1, columns, rows)", BACK, *TURNED),
        (BEFORE, *SLICES, FLAT, BACK, TURNED[0], "b = Transpose<perm = [1, 0, 2]>(a)", TURNED[2]),
        (BEFORE, "other = Relu(x)", "s = Shape(other)", *SLICES[1:], FLAT, BACK, *TURNED),
    ],
    ids=["unknown rank", "not turned back", "turned before", "other axes", "another's shape"],
)
def test_anything_else_stays(body):
    before = [node.op_type for node in remove_unused(graph(*body)).graph]
    assert [node.op_type for node in remove_unused(transpose(graph(*body))).graph] == before
    assert before.count("Reshape") == 2
