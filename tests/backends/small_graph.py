"""A small graph that every backend must build, its signature, and numpy's answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.signature import Port, Range, Signature

SIGNATURE = Signature(
    inputs=(
        Port(name="latent", shape=("batch", 4, "2*rows", "columns")),
        Port(name="token_ids", dtype="int64", shape=("batch", 7)),
        Port(name="scale", shape=()),
    ),
    outputs=(
        Port(name="moved", shape=("batch", 4, "2*rows", "columns")),
        Port(name="next_ids", dtype="int64", shape=("batch", 7)),
    ),
    dims={
        "batch": Range(min=1, typical=2, max=4),
        "rows": Range(min=2, typical=4, max=8),
        "columns": Range(min=4, typical=8, max=16, multiple=2),
    },
)
TABLE = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)


def expected(inputs):
    """What the graph computes."""
    words = TABLE[inputs["token_ids"]].mean(axis=1)
    return {"moved": inputs["latent"] * inputs["scale"] + words[:, :, None, None], "next_ids": inputs["token_ids"] + 1}


def feed(batch=2, rows=4, columns=8, seed=0):
    """Inputs of one size."""
    random = np.random.default_rng(seed)
    return {
        "latent": random.standard_normal((batch, 4, 2 * rows, columns)).astype(np.float32),
        "token_ids": random.integers(0, 16, (batch, 7)),
        "scale": np.array(1.5, np.float32),
    }


def wrong_answers(engine, sizes, rounds=50):
    """How many answers are not the caller's, of one engine that a thread per size calls at the same time."""
    turns = threading.Barrier(len(sizes), timeout=60)

    def work(index):
        wrong = 0
        for turn in range(rounds):
            inputs = feed(*sizes[(index + turn // 10) % len(sizes)], seed=100 * index + turn)
            inputs["token_ids"].flags.writeable = False
            turns.wait()
            for _ in range(2):  # the second time an engine may know that it has them
                try:
                    got, want = engine(inputs), expected(inputs)
                except Exception:
                    turns.abort()
                    raise
                wrong += not all(np.allclose(got[name], array, rtol=1e-5, atol=1e-5) for name, array in want.items())
        return wrong

    with ThreadPoolExecutor(len(sizes)) as threads:
        return sum(threads.map(work, range(len(sizes))))


def write_graph(file: Path, opset: int, *, half=False):
    """The graph, with its weights in `<file>.data`. `half`: computed in float16, declared float32."""
    real = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["latent"], ["l"], to=real),
        helper.make_node("Cast", ["scale"], ["s"], to=real),
        helper.make_node("Gather", ["table", "token_ids"], ["words"]),
        helper.make_node("ReduceMean", ["words", "axis"], ["word"], keepdims=0),
        helper.make_node("Unsqueeze", ["word", "axes"], ["shift"]),
        helper.make_node("Mul", ["l", "s"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["moved"]),
        helper.make_node("Add", ["token_ids", "one"], ["next_ids"]),
    ]
    weights = {
        "table": TABLE.astype(np.float16) if half else TABLE,
        "axis": np.array([1]),
        "axes": np.array([2, 3]),
        "one": np.array(1),
    }
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    sides = [
        [helper.make_tensor_value_info(port.name, types[port.dtype], port.shape) for port in ports]
        for ports in (SIGNATURE.inputs, SIGNATURE.outputs)
    ]
    graph = helper.make_graph(nodes, "small", *sides, [numpy_helper.from_array(array, name) for name, array in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(model, file, save_as_external_data=True, location=f"{file.name}.data", size_threshold=100)
    return file
