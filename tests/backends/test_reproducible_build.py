import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engines
from engines.backends import _reproducible_build
from engines.backends.tensorrt_rtx import TensorrtRtx
from engines.errors import UnsupportedError
from engines.signature import Port, Range, Signature
from tests.backends.small_graph import SIGNATURE

pytest.importorskip("tensorrt_rtx")


def test_what_the_build_says_comes_through(tmp_path):
    (tmp_path / "part.onnx").write_bytes(b"not a graph")
    with pytest.raises(UnsupportedError, match=r"part\.onnx"):
        TensorrtRtx().build(tmp_path / "part.onnx", SIGNATURE, tmp_path / "out")


def test_a_killed_process_is_said_to_lack_memory(tmp_path, monkeypatch):
    killed = subprocess.CompletedProcess([], -9, b"", b"")
    monkeypatch.setattr(_reproducible_build.subprocess, "run", lambda *_args, **_more: killed)
    with pytest.raises(UnsupportedError, match=r"part\.onnx.*SIGKILL.*memory"):
        _reproducible_build.build("tensorrt_rtx", TensorrtRtx(), tmp_path / "part.onnx", SIGNATURE, tmp_path / "out")


def test_an_error_of_the_disk_stays_one(tmp_path, monkeypatch):
    answered = subprocess.CompletedProcess([], 0, b'noise\n{"errno": 28, "text": "No space left on device"}\n', b"")
    monkeypatch.setattr(_reproducible_build.subprocess, "run", lambda *_args, **_more: answered)
    with pytest.raises(OSError, match="No space left") as raised:
        _reproducible_build.build("tensorrt_rtx", TensorrtRtx(), tmp_path / "part.onnx", SIGNATURE, tmp_path / "out")
    assert raised.value.errno == 28


def test_paths_of_any_length_give_the_same_bytes(graphs, tmp_path):
    first, second = (TensorrtRtx().build(graphs(20), SIGNATURE, tmp_path / name)[0].read_bytes() for name in ("a", "a" * 100))
    assert first == second


def test_no_other_program_decides_which_thread_is_first(tmp_path):
    # A UNet's engine, built three times over at once on two processors, came in two kinds (16 and 26 of 42) without the policy.
    program = (
        "import os; from engines.backends import _reproducible_build; "
        "os.execv = lambda *_: print(os.sched_getscheduler(0) == os.SCHED_BATCH, len(os.sched_getaffinity(0))); "
        "_reproducible_build.prepare()"
    )
    request = json.dumps({"plugin": "tensorrt_rtx", "onnx": str(tmp_path / "part.onnx"), "folder": str(tmp_path)})
    done = subprocess.run([sys.executable, "-c", program], input=request, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "1"]


def deep(file, blocks=8):
    """Convolutions, norms, activations, doublings and products one after the other, as in a decoder."""
    random, last, nodes, weights = np.random.default_rng(0), "latent", [], {"twice": np.array([1, 1, 2, 2], np.float32)}
    for block in range(blocks):
        kernel = random.standard_normal((16, 4 if block == 0 else 16, 3, 3)).astype(np.float32)
        weights |= {f"kernel{block}": kernel, f"scale{block}": np.ones(16, np.float32), f"bias{block}": np.zeros(16, np.float32)}
        nodes += [
            helper.make_node("Conv", [last, f"kernel{block}"], [f"moved{block}"], pads=[1] * 4),
            helper.make_node("InstanceNormalization", [f"moved{block}", f"scale{block}", f"bias{block}"], [f"normed{block}"]),
            helper.make_node("Sigmoid", [f"normed{block}"], [f"gate{block}"]),
            helper.make_node("Mul", [f"normed{block}", f"gate{block}"], [f"out{block}"]),
        ]
        last = f"out{block}"
        if block in {2, 5}:
            nodes.append(helper.make_node("Resize", [last, "", "twice"], [f"large{block}"], mode="nearest"))
            nodes.append(helper.make_node("MatMul", [f"large{block}", f"large{block}"], [f"product{block}"]))
            nodes.append(helper.make_node("Softmax", [f"product{block}"], [f"soft{block}"], axis=-1))
            last = f"soft{block}"
    nodes.append(helper.make_node("Conv", [last, "last"], ["image"], pads=[1] * 4))
    weights["last"] = random.standard_normal((3, 16, 3, 3)).astype(np.float32)
    sides = [helper.make_tensor_value_info(port.name, TensorProto.FLOAT, port.shape) for port in (*DEEP.inputs, *DEEP.outputs)]
    made = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "deep", sides[:1], sides[1:], made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
    return file


DEEP = Signature(
    inputs=(Port(name="latent", shape=("batch", 4, "side", "side")),),
    outputs=(Port(name="image", shape=("batch", 3, "4*side", "4*side")),),
    dims={"batch": Range(min=1, typical=2, max=4), "side": Range(min=4, typical=8, max=16)},
)


def test_code_that_has_no_part_in_it_changes_no_byte(tmp_path):
    graph = deep(tmp_path / "deep.onnx")
    shutil.copytree(Path(engines.__file__).parent, tmp_path / "engines", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "engines" / "backends" / "tensorrt_rtx.py").open("a") as module:
        module.write('\nUNREAD = {f"a word {number}": [number] * 50 for number in range(300)}\n')
    program = (
        "import sys; from pathlib import Path; from engines.backends.tensorrt_rtx import TensorrtRtx, UNREAD; "
        "from engines.signature import Signature; signature = Signature.model_validate_json(sys.argv[1]); "
        "TensorrtRtx().build(Path(sys.argv[2]), signature, Path(sys.argv[3]))"
    )
    arguments = [DEEP.model_dump_json(), str(graph), str(tmp_path / "other")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program, *arguments], env=environment, cwd=tmp_path, check=True)
    (own,) = TensorrtRtx().build(graph, DEEP, tmp_path / "own")
    assert own.read_bytes() == (tmp_path / "other" / own.name).read_bytes()
