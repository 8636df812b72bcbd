"""What does not need the peers' libraries: names of weights, refusals, reasons, and the talk with a peer's process."""

import json
import sys

import numpy as np
import pytest

from exporter.bench import run
from tools.peers import bench

TASK = run.Task(prompt="a sea", steps=2, height=16, width=24, guidance_scale=None)
#: A peer's process that draws without any library: the value of the noise everywhere.
WORKER = """
import json, sys
import numpy as np
kind, model = sys.argv[1:]
if kind == "broken":
    sys.exit("Traceback\\nImportError: cannot import name 'x'\\n  ^^^^\\n")
print(json.dumps({"ready": {"onnxruntime": "1.0"}}), flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    assert (ask["prompt"], ask["steps"], ask["guidance_scale"]) == ("a sea", 2, None)
    np.save(ask["out"], np.full((ask["count"], ask["height"], ask["width"], 3), int(np.load(ask["noise"])[0]), np.uint8))
    print(json.dumps({"done": ask["out"]}), flush=True)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An environment that is this one, and a worker that needs nothing of it."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    monkeypatch.setattr(bench, "_WORKER", worker)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path.endswith("site-packages")))
    np.save(tmp_path / "noise.npy", np.array([7.0]))
    return tmp_path


def test_a_peer_draws_what_it_is_asked(home, monkeypatch):
    monkeypatch.setattr(bench, "_environment", lambda: dict(bench.os.environ))
    with bench.peer("optimum-onnx", home, home / "model", home, TASK) as contestant:
        (image,) = contestant.draw(1)
        assert (image.size, image.getpixel((0, 0))) == ((24, 16), (7, 7, 7))
        assert len(contestant.draw(3)) == 3
        assert contestant.runs_on == "onnxruntime 1.0"


def test_a_peer_that_does_not_start_says_why(home, monkeypatch):
    monkeypatch.setattr(bench, "_environment", lambda: dict(bench.os.environ))
    broken = bench.peer("broken", home, home / "model", home, TASK)
    with pytest.raises(bench.PeerError, match=r"^ImportError: cannot import name 'x'$"), broken:
        pytest.fail("it started")


def test_the_peers_environment_is_its_own(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "here")
    assert not bench._environment()["PYTHONPATH"]


def test_an_installation_that_fails_says_why(tmp_path):
    program = tmp_path / "fails"
    program.write_text("#!/bin/sh\necho 'ERROR: No matching distribution found for x' >&2\necho '    ^^^' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(bench.PeerError, match=r"^ERROR: No matching distribution found for x$"):
        bench._call([str(program), "install"])


def test_nothing_for_gpus_is_installed():
    plan = {"install": [{"metadata": {"name": name}} for name in ("torch", "nvidia-cublas", "nvidia-cudnn-cu13")]}
    with pytest.raises(bench.PeerError, match="would install nvidia-cublas and 1 more for GPUs"):
        bench.refuse_cuda(plan)
    bench.refuse_cuda({"install": plan["install"][:1]})


def test_weights_get_the_names_that_every_version_knows(tmp_path):
    from safetensors.torch import load_file, save_file
    from torch import ones

    file = tmp_path / "model.safetensors"
    save_file({"embeddings.weight": ones(2), "text_projection.weight": ones(3), "text_model.encoder.weight": ones(1)}, file)
    for _ in range(2):
        bench.prefix_weights(file)
        found = {name: len(value) for name, value in load_file(file).items()}
        assert found == {"text_model.embeddings.weight": 2, "text_projection.weight": 3, "text_model.encoder.weight": 1}


def test_every_peer_has_a_place_and_a_worker():
    from tools.peers import worker

    assert set(bench.PEERS) == set(worker.KINDS)
    assert set(bench.PEERS.values()) == set(bench.PLACES)
    assert json.dumps(TASK.wishes)
