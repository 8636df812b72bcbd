"""File names of weights in every spelling that diffusers and transformers write: variants, shards, both, with an index."""

import json

import pytest

from engines.errors import UnsupportedError
from exporter.models import safetensors_header

D, M = "diffusion_pytorch_model", "model"


def two(start: str, end: str) -> list[str]:
    return [f"{start}-{number:05}-of-00002{end}.safetensors" for number in (1, 2)]


@pytest.mark.parametrize(
    ("names", "variant", "wanted"),
    [
        ([f"{D}.safetensors", f"{D}.fp16.safetensors"], None, [f"{D}.safetensors"]),
        ([f"{D}.safetensors", f"{D}.fp16.safetensors"], "fp16", [f"{D}.fp16.safetensors"]),
        ([f"{D}.safetensors"], "fp16", [f"{D}.safetensors"]),
        ([f"{M}.fp16.safetensors"], None, [f"{M}.fp16.safetensors"]),
        ([f"{D}.some-thing.safetensors"], None, [f"{D}.some-thing.safetensors"]),
        ([f"{D}.non_ema.safetensors", f"{D}.ema.safetensors"], None, [f"{D}.non_ema.safetensors"]),
        (two(M, ""), None, two(M, "")),
        (two(f"{D}.fp16", ""), None, two(f"{D}.fp16", "")),
        (two(D, ".fp16"), None, two(D, ".fp16")),
        ([f"{D}.safetensors", f"{D}-00001-of-00002.safetensors"], None, [f"{D}.safetensors"]),
        ([*two(D, ""), f"{D}-00003-of-00003.safetensors"], None, two(D, "")),
        (["other.safetensors", f"{D}.safetensors", "model.onnx"], None, [f"{D}.safetensors"]),
    ],
    ids=str,
)  # fmt: skip
def test_one_set_is_chosen(names, variant, wanted):
    assert safetensors_header.chosen(names, "unet", variant) == wanted


def test_a_missing_shard_is_named():
    names = [f"{D}.fp16-{n:05}-of-00004.safetensors" for n in (1, 3)]
    with pytest.raises(UnsupportedError, match=r"unet lacks 2 of 4 shards: .*fp16-00002-of-00004.*fp16-00004-of-00004\."):
        safetensors_header.chosen(names, "unet")


def test_two_unusual_variants():
    with pytest.raises(UnsupportedError, match=r"several variants: ema, other\.\n  Set model\.variant"):
        safetensors_header.chosen([f"{D}.ema.safetensors", f"{D}.other.safetensors"], "unet")
    names = [f"{D}.ema.safetensors", f"{D}.other.safetensors"]
    assert safetensors_header.chosen(names, "unet", "ema") == names[:1]


@pytest.mark.parametrize("index", [f"{D}.safetensors.index.json", f"{D}.safetensors.index.fp16.json"])
def test_an_index_that_speaks_of_more(tmp_path, index):
    names = [f"{D}-{n:05}-of-00002.safetensors" for n in (1, 2)]
    for name in names:
        (tmp_path / name).touch()
    content = {"weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / index).write_text(json.dumps(content))
    assert [file.name for file in safetensors_header.files(tmp_path)] == names
    content["weight_map"]["c"] = "more.safetensors"
    (tmp_path / index).write_text(json.dumps(content))
    with pytest.raises(UnsupportedError, match=r"speaks of files that are not there: more\.safetensors"):
        safetensors_header.files(tmp_path)
