import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnx_ir as ir
import pytest

from exporter.graph.upsample import upsample

DOUBLE = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
CONVOLVE = "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"


def graph(double=DOUBLE, convolve=CONVOLVE, *more, scales=(1, 1, 2, 2), outputs="float[1, 5, 6, 8] y"):
    """x (1, 3, 3, 4), doubled to d, convolved to y (1, 5, 6, 8)."""
    body = [f"d = Resize<{double}>(x, , scales)", f"y = Conv<{convolve}>(d, w, b)", *more]
    text = f'<ir_version: 10, opset_import: ["" : 20]> agraph (float[1, 3, 3, 4] x) => ({outputs}) {{\n'
    model = ir.from_proto(onnx.parser.parse_model(text + "\n".join(body) + "\n}"))
    random = np.random.Generator(np.random.Philox(0))
    given = {"scales": np.array(scales, np.float32)}
    given |= {"w": random.standard_normal((5, 3, 3, 3), np.float32), "b": random.standard_normal(5, np.float32)}
    values = {}
    for name, array in given.items():
        tensor = ir.tensor(array, name=name)
        values[name] = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
        model.graph.register_initializer(values[name])
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in values:
                node.replace_input_with(index, values[value.name])
    return model


def run(model):
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    image = np.random.Generator(np.random.Philox(1)).standard_normal((1, 3, 3, 4), np.float32)
    return onnx.reference.ReferenceEvaluator(proto).run(None, {"x": image})[0]


def test_it_draws_the_same_at_every_pixel():
    want = run(graph())
    changed = upsample(graph())
    assert [node.op_type for node in changed.graph] == ["Conv"] * 4 + ["Concat", "DepthToSpace"]
    np.testing.assert_allclose(run(changed), want, rtol=1e-5, atol=1e-5)


def test_what_follows_reads_the_result():
    more, outputs = ("z = Relu(y)",), "float[1, 5, 6, 8] z"
    want = run(graph(DOUBLE, CONVOLVE, *more, outputs=outputs))
    np.testing.assert_allclose(run(upsample(graph(DOUBLE, CONVOLVE, *more, outputs=outputs))), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        graph(DOUBLE.replace("floor", "ceil")),
        graph(DOUBLE.replace("asymmetric", "half_pixel")),
        graph(DOUBLE.replace('nearest",', 'linear",', 1)),
        graph(DOUBLE, CONVOLVE + ", dilations = [2, 2]"),
        graph(DOUBLE, "kernel_shape = [3, 3], pads = [0, 1, 2, 1]"),
        graph(scales=(1, 1, 3, 2)),
        graph(DOUBLE, CONVOLVE, "z = Relu(d)", outputs="float[1, 5, 6, 8] y, float[1, 3, 6, 8] z"),
    ],
    ids=["ceil", "half pixel", "linear", "dilated", "aside", "tripled", "read twice"],
)
def test_anything_else_stays(other):
    before = [node.op_type for node in other.graph]
    assert [node.op_type for node in upsample(other).graph] == before


def test_half_precision_weights_stay_half():
    model = graph()
    weight = model.graph.initializers["w"]
    weight.const_value = ir.tensor(weight.const_value.numpy().astype(np.float16), name="w")
    kinds = {str(node.inputs[1].const_value.dtype) for node in upsample(model).graph if node.op_type == "Conv"}
    assert kinds == {"FLOAT16"}
