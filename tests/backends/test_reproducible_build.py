import subprocess

import pytest

from engines.backends import _reproducible_build
from engines.backends.tensorrt_rtx import TensorrtRtx
from engines.errors import UnsupportedError
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
