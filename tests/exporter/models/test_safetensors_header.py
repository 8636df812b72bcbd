"""A safetensors file's header, and which of a folder's files count, without torch."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from engines.errors import UnsupportedError
from exporter.models import safetensors_header as header


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {"x.weight": np.zeros((2, 3), np.float32), "x.bias": np.zeros(2, np.float16), "y": np.zeros(())}
    save_file(arrays, path, {"who": "me"})
    return path


def test_shapes_words_and_counts(file):
    found = header.shapes(file)
    assert found == {"x.weight": (2, 3), "x.bias": (2,), "y": ()}
    assert header.metadata(file) == {"who": "me"}
    assert header.header(file).types == {"x.weight": "F32", "x.bias": "F16", "y": "F64"}
    assert header.numbers(file, "x.bias") == [0.0, 0.0]


def test_a_file_without_words_or_tensors(tmp_path):
    save_file({}, tmp_path / "a.safetensors")
    assert header.shapes(tmp_path / "a.safetensors") == {}
    assert header.metadata(tmp_path / "a.safetensors") == {}


def raw(content, data=b"", length=None):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


WHOLE = {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "header too small"),
        (b"1234", "header too small"),
        (raw(WHOLE, b"1234", 10**9), "header too large"),
        (raw(WHOLE, b"123"), "incomplete metadata"),
        (raw(WHOLE, b"12345"), "incomplete metadata"),
        (raw(b"{not json}"), "invalid JSON"),
        (raw(b"[" * 100_000), "invalid JSON"),
        (raw({"x": {"shape": [1]}}), "invalid JSON"),
        (raw({"x": 3}), "invalid JSON"),
        (raw([1]), "invalid JSON"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, told):
    path = tmp_path / "b.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnsupportedError, match=rf"b\.safetensors is not a whole safetensors file: .*{told}.*\n  Download"):
        header.shapes(path)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "model.fp16.safetensors", "config.json"], ["model.safetensors"]),
        (["model.fp16.safetensors", "model.bf16.safetensors"], ["model.fp16.safetensors"]),
        (["diffusion_pytorch_model.non_ema.safetensors"], ["diffusion_pytorch_model.non_ema.safetensors"]),
        (
            ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors", "model.fp16.safetensors"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (["pytorch_model.bin", "model.safetensors"], ["model.safetensors"]),
    ],
)
def test_one_variant_is_enough(names, chosen):
    assert header.chosen(names, "unet") == chosen


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["pytorch_model.bin"], r"unet: weights only as a pickle \(pytorch_model\.bin\), which can run any code"),
        (["config.json", "other.safetensors"], "unet has no weights: expected diffusion_pytorch_model.safetensors"),
        ([], "unet has no weights"),
    ],
)
def test_what_holds_no_weights(names, told):
    with pytest.raises(UnsupportedError, match=told):
        header.chosen(names, "unet")


def test_pickles_are_refused_by_name():
    header.refuse_pickle("x", ["a.safetensors", "b.json"])
    for name in ("a.ckpt", "a.pt", "a.pth", "a.bin"):
        with pytest.raises(UnsupportedError, match=rf"x: weights only as a pickle \({name}\)"):
            header.refuse_pickle("x", [name])
