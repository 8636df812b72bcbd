"""A network of two convolutions and two products in one graph, with a weight that is delicate, calls of it, and it quantized."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines import plugins
from engines.signature import Port, Range, Signature
from exporter.parity.metrics import psnr
from exporter.part import Case
from exporter.passes.quantize import Quantize
from exporter.quantization.calibrate import CalibrationInput

SIGNATURE = Signature(
    inputs=(Port(name="latent", shape=("batch", 16, 8, 8)), Port(name="timestep", shape=("batch",))),
    outputs=(Port(name="model_output", shape=("batch", 16, 8, 8)),),
    dims={"batch": Range(min=1, typical=1, max=2)},
)

#: Its layers but the first and the last.
MIDDLE = {"middle", "to_q", "to_k", "to_out"}


def write(folder, *, spike=1.0, dead=False, silent=False):
    """conv_in → middle → norm → to_q, to_k → sum → conv_out. `spike` makes one channel of `middle`'s input large."""
    random = np.random.default_rng(0)

    def weight(*shape):
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    channel = np.ones((1, 16, 1, 1), np.float32)
    channel[0, 3] = spike
    channel *= not silent
    arrays = {
        "net.conv_in.weight": weight(16, 16, 3, 3), "net.conv_in.bias": weight(16),
        "net.middle.weight": weight(16, 16, 3, 3) * (0 if dead else 1), "net.middle.bias": weight(16),
        "net.to_q.weight.T": weight(16, 32), "net.to_k.weight.T": weight(16, 32),
        "net.to_out.weight.T": weight(32, 16),
        "net.conv_out.weight": weight(16, 16, 3, 3), "net.conv_out.bias": weight(16),
        "channel": channel, "gain": np.ones(16, np.float32), "shift": np.zeros(16, np.float32), "axes": np.array([1, 2, 3]),
    }  # fmt: skip
    if spike:
        arrays["net.middle.weight"][:, 3] /= spike  # a large channel that counts no more than the others
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["timestep", "axes"], ["time"]),
        node("Add", ["latent", "time"], ["moved"]),
        node("Conv", ["moved", "net.conv_in.weight", "net.conv_in.bias"], ["a"], pads=[1, 1, 1, 1], name="node_conv"),
        node("Mul", ["a", "channel"], ["spiked"]),
        node("Conv", ["spiked", "net.middle.weight", "net.middle.bias"], ["b"], pads=[1, 1, 1, 1], name="node_conv_1"),
        node("Transpose", ["b"], ["last"], perm=[0, 2, 3, 1]),
        node("LayerNormalization", ["last", "gain", "shift"], ["normal"]),
        node("MatMul", ["normal", "net.to_q.weight.T"], ["q"], name="node_linear"),
        node("MatMul", ["normal", "net.to_k.weight.T"], ["k"], name="node_linear_1"),
        node("Mul", ["q", "k"], ["qk"]),
        node("MatMul", ["qk", "net.to_out.weight.T"], ["o"], name="node_linear_2"),
        node("Transpose", ["o"], ["first"], perm=[0, 3, 1, 2]),
        node("Add", ["first", "a"], ["sum"]),
        node("Conv", ["sum", "net.conv_out.weight", "net.conv_out.bias"], ["model_output"], pads=[1] * 4, name="node_conv_2"),
    ]
    shape = ["batch", 16, 8, 8]
    graph = helper.make_graph(
        nodes, "layered",
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, shape),
         helper.make_tensor_value_info("timestep", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("model_output", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "unet.onnx"
    onnx.save(model, path, save_as_external_data=True, location="unet.onnx.data", size_threshold=100)
    return path


def cases(count=6, scale=1.0):
    """Calls along a trajectory."""
    random = np.random.default_rng(1)
    found = []
    for index in range(count):
        latent = (random.standard_normal((1, 16, 8, 8)) * scale * (1 + index)).astype(np.float32)
        inputs = {"latent": latent, "timestep": np.array([float(index)], np.float32)}
        found.append(Case(f"run, step {index + 1} of {count}", inputs, {"model_output": latent}))
    return found


def given(tmp_path, calls=None, *, outputs=False, **graph):
    """What a calibration of it starts from."""
    path = write(tmp_path / "export", **graph)
    calls = cases() if calls is None else calls
    return CalibrationInput("unet", "components.unet.passes.0.quantize", "0" * 64, path, SIGNATURE, calls, outputs, tmp_path)


def quantized(tmp_path, *, outputs=False, cases=None, graph=None, **options):
    """Calibrate and write; the calibration, and the file."""
    step, start = Quantize(**options), given(tmp_path, cases, outputs=outputs, **graph or {})
    found = step.calibrate(start)
    (tmp_path / "quantized").mkdir()
    step.apply(start.graph, found, tmp_path / "quantized" / "unet.onnx")
    return found, tmp_path / "quantized" / "unet.onnx"


def error(file, plain, backend="onnxruntime", folder=None, **options):
    """PSNR of a graph against another on the calls, the worst."""
    chosen = plugins.load("backends", backend)(**options)
    built = chosen.build(file, SIGNATURE, folder) if folder else [file]
    reference = plugins.load("backends", "onnxruntime")(graph_optimization="none")
    with chosen.open(built, SIGNATURE) as engine, reference.open([plain], SIGNATURE) as exact:
        pairs = [(engine(case.inputs)["model_output"], exact(case.inputs)["model_output"]) for case in cases()]
    return min(psnr(*pair) for pair in pairs)


def kinds(file):
    """Operators of a graph, in its order."""
    return [node.op_type for node in onnx.load(file, load_external_data=False).graph.node]
