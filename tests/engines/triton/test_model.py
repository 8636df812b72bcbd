"""The repository at work: `model.py` is loaded as the Python backend does it, its networks are called through the server."""

import json
import subprocess
import sys

import numpy as np
import pytest

from engines.pipeline import Pipeline
from engines.triton import repository
from engines.triton.model import wishes
from tests.engines import small
from tests.engines.test_real_engines import graphs
from tests.engines.triton.server import Server, Tensor


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "bundle", graphs=graphs())


@pytest.fixture
def server(bundle, tmp_path, monkeypatch):
    repository.write(bundle.folder, tmp_path / "repository")
    return Server(tmp_path / "repository", monkeypatch)


def asked(**given):
    """A request: arrays by the names of the model's inputs."""
    made = {}
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        text = isinstance(values[0], str)
        array = np.array([one.encode() for one in values], object) if text else np.asarray(value)
        made[name] = Tensor(name, array if array.ndim else array[None])
    return made


def test_its_pictures_are_the_bundles(server, bundle):
    model = server.load("small")
    prompts = ["a red square", "the sea", "a circle"]
    ask = asked(prompt=prompts, negative_prompt="blue", seed=np.int64(7), guidance_scale=np.float32(3), steps=np.int32(2))
    (answer,) = model.execute([ask])
    assert not answer.has_error()
    images, infos = (tensor.as_numpy() for tensor in answer.tensors)
    assert (images.shape, images.dtype) == ((3, 32, 32, 3), np.uint8)
    with Pipeline.open(bundle.folder) as pipeline:
        wanted = pipeline.generate(prompts, negative_prompt="blue", seed=7, guidance_scale=3.0, steps=2)
    np.testing.assert_array_equal(images, np.stack([np.asarray(one) for one in wanted]))
    told = json.loads(infos[1])
    assert (told["prompt"], told["seed"], told["engine"]) == ("the sea", "8", "triton")
    assert {name for name, _ in server.calls} == {"small.text_encoder", "small.unet", "small.vae_decoder"}


def test_its_ports_are_those_of_its_config(server):
    model, config = server.load("small"), server.configs["small"]
    (answer,) = model.execute([asked(prompt="a", height=np.int32(64), width=np.int32(32), steps=np.int32(4))])
    for port, tensor in zip(config.output, answer.tensors, strict=True):
        assert port.name == tensor.name()
        server.fits(port, tensor.as_numpy().shape, tensor.as_numpy().dtype)


def test_each_request_is_answered_and_a_wrong_one_says_what_is_wrong(server):
    wrong, right = server.load("small").execute([asked(prompt="a", steps=np.int32(3)), asked(prompt="a")])
    assert wrong.error().code == 3
    assert "no sampler of 3 steps" in wrong.error().message()
    assert not right.has_error()


def test_what_fails_in_a_network_is_no_fault_of_the_request(server):
    model = server.load("small")
    server.configs["small.unet"].backend = "tensorrt"
    with pytest.raises(RuntimeError, match=r"small\.unet: no backend tensorrt here"):
        model.execute([asked(prompt="a")])


def test_a_request_becomes_wishes_of_their_own_kinds():
    made = wishes(
        {
            "seed": np.array([1, 2]),
            "steps": np.array([4], np.int32),
            "generator": np.array([b"torch-cpu"], object),
            "negative_prompt": np.array([b"x"], object),
            "mask": np.zeros((8, 16), np.uint8),
            "strength": np.array([0.5], np.float32),
        }
    )
    assert made.pop("mask").size == (16, 8)
    assert made == {"seed": [1, 2], "steps": 4, "generator": "torch-cpu", "negative_prompt": ["x"], "strength": 0.5}


def test_the_program_imports_engines_alone(bundle, tmp_path):
    repository.write(bundle.folder, tmp_path / "repository")
    program = tmp_path / "repository/small/1/model.py"
    lines = [line for line in program.read_text().splitlines() if "import" in line.split("#")[0] and not line.startswith('"""')]
    assert lines == ["from engines.triton.model import TritonPythonModel"]
    probe = f"exec(open({str(program)!r}).read()); import sys; print(*sorted({{'torch', 'onnx', 'exporter'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
