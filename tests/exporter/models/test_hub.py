"""From the hub come a pinned commit, safetensors and text, and what goes wrong is a sentence."""

import json
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest

from engines.errors import MissingDependency, UnsupportedError
from exporter.models import hub

FILES = [
    "model_index.json", "README.md", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin", "unet/deep/config.json",
    "tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json", "safety_checker/config.json",
]  # fmt: skip
INDEX = {"_class_name": "X", "unet": ["diffusers", "UNet"], "tokenizer": ["transformers", "CLIP"], "safety_checker": [None, None]}


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A hub with one repository; it notes what it was asked for."""
    made = SimpleNamespace(files=list(FILES), patterns=[], downloads=[])
    (tmp_path / "model_index.json").write_text(json.dumps(INDEX))

    class HfApi:
        def model_info(self, repo, revision=None):
            assert (repo, revision) == ("owner/model", "main")
            return SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=name) for name in made.files])

    def snapshot_download(repo, *, revision, allow_patterns):
        assert (repo, revision) == ("owner/model", "c0ffee")
        made.patterns += allow_patterns
        return str(tmp_path)

    def hf_hub_download(repo, name, *, revision):
        assert (repo, revision) == ("owner/model", "c0ffee")
        made.downloads.append(name)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return made


UNET = ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"]


@pytest.mark.parametrize(
    ("more", "patterns"),
    [
        ({}, ["model_index.json", *UNET, "tokenizer/vocab.json", "tokenizer/merges.txt"]),
        ({"weights": False}, ["model_index.json", UNET[0], "tokenizer/vocab.json", "tokenizer/merges.txt"]),
        ({"only": ["scheduler"]}, ["model_index.json", "scheduler/scheduler_config.json"]),
    ],
)
def test_components_of_the_index_without_pickles(served, tmp_path, more, patterns):
    assert hub.fetch("owner/model", "main", **more) == (tmp_path, "c0ffee")
    assert served.patterns == patterns
    assert served.downloads == ([] if "only" in more else ["model_index.json"])


def test_one_network_of_a_pipeline(served, tmp_path):
    assert hub.fetch_network("owner/model", "main", "unet") == (tmp_path, "c0ffee")
    assert served.patterns == ["model_index.json", "scheduler/scheduler_config.json", *UNET]


def test_a_network_alone_and_what_stands_beside_it(served):
    served.files = ["config.json", "model.safetensors", "preprocessor_config.json", "deep/model.safetensors"]
    hub.fetch_network("owner/model", "main", "classifier", beside=["preprocessor_config.json"])
    assert served.patterns == ["config.json", "preprocessor_config.json", "model.safetensors"]


def test_one_file_is_chosen_by_name(served, tmp_path):
    assert hub.fetch_file("owner/model", "main", lambda names: names[1]) == (tmp_path / "README.md", "c0ffee")
    assert served.downloads == ["README.md"]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["x.ckpt"], "owner/model: weights only as a pickle"),
        (["x.safetensors", "x.ckpt"], "has no model_index.json, so it is not a diffusers pipeline"),
        (["README.md"], "has no model_index.json"),
    ],
)
def test_what_is_no_pipeline(served, files, told):
    served.files = files
    with pytest.raises(UnsupportedError, match=told):
        hub.fetch("owner/model", "main")


@pytest.mark.parametrize("error", [OSError("no route\nto host"), huggingface_hub.errors.LocalEntryNotFoundError("no route")])
def test_a_hub_that_cannot_be_reached(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=fail))
    fetches = [hub.fetch, lambda *given: hub.fetch_network(*given, "unet"), lambda *given: hub.fetch_file(*given, min)]
    for fetch in fetches:
        with pytest.raises(UnsupportedError, match=r"o/m could not be fetched from the hub: no route\n  Check the id"):
            fetch("o/m", None)


def test_a_mistake_of_the_program_stays_one(served):
    with pytest.raises(ZeroDivisionError):
        hub.fetch_file("owner/model", "main", lambda _: 1 / 0)
    assert served.downloads == []


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependency, match=r"huggingface_hub is not installed.*\n.*t2iexport\[compile\]"):
        hub.fetch("o/m", None)


@pytest.mark.parametrize(
    ("name", "is_one"), [("a/b", True), ("a-b.c/d_e", True), ("a", False), ("/a", False), ("a/b/c", False), ("a b/c", False)]
)
def test_ids(name, is_one):
    assert bool(hub.ID.fullmatch(name)) == is_one
