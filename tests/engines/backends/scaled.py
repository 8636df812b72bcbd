"""A graph that computes y = x * 3 + ids, with two sizes that are open."""

import numpy as np

from engines.signature import Port, Range, Signature

DIMS = {"batch": Range(min=1, typical=1, max=2), "width": Range(min=2, typical=4, max=8, multiple=2)}
SIGNATURE = Signature(
    inputs=(Port(name="x", shape=("batch", "width")), Port(name="ids", dtype="int64", shape=("batch",))),
    outputs=(Port(name="y", shape=("batch", "width")),),
    dims=DIMS,
)


def arrays(batch=2, width=4):
    generator = np.random.default_rng(0)
    return {"x": generator.standard_normal((batch, width), np.float32), "ids": np.arange(batch)}


def write(path, *, external=False):
    """Write it, its weight inside or beside it; onnx is imported here, since the run time's tests go without."""
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto
    weight = onnx.numpy_helper.from_array(np.full(1, 3, np.float32), "w")
    axes = onnx.numpy_helper.from_array(np.array([1]), "axes")
    nodes = [
        helper.make_node("Constant", [], ["axes"], value=axes),
        helper.make_node("Mul", ["x", "w"], ["product"]),
        helper.make_node("Cast", ["ids"], ["numbers"], to=kind.FLOAT),
        helper.make_node("Unsqueeze", ["numbers", "axes"], ["column"]),
        helper.make_node("Add", ["product", "column"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, kind.FLOAT, ["batch", "width"]) for name in "xy")
    ids = helper.make_tensor_value_info("ids", kind.INT64, ["batch"])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x, ids], [y], [weight]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)
    assert path.with_name(f"{path.name}.data").exists() == external
    return path
