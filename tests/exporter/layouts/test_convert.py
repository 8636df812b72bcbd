"""A folder is there whole or not at all; what it cannot hold is refused before anything is loaded."""

import json
import shutil
from types import SimpleNamespace

import pytest

from engines.bundle import draft, write
from engines.errors import UnsupportedError
from exporter.layouts import convert
from tests.engines import small

SD = "StableDiffusionPipeline"
ENTRIES = ("text_encoder", "unet", "vae_decoder")


@pytest.fixture
def manifest(tmp_path):
    return small.make(tmp_path / "bundle").manifest


@pytest.fixture
def exporting(monkeypatch):
    """Exports that take no time: what is written is the part's name. Returns what was asked for."""
    seen = []

    def save(exported, path):
        seen.append(path.parent.name)
        path.write_text(exported.name)

    def beside(_pipeline, folder):
        for name in (*ENTRIES, "vae_encoder"):
            (folder / name).mkdir()
            (folder / name / "config.json").write_text("{}")

    parts = [SimpleNamespace(name=name, role="text", model=None) for name in ENTRIES]
    monkeypatch.setattr(convert, "save", save)
    monkeypatch.setattr(convert.beside, "write", beside)
    monkeypatch.setattr(convert.plain, "parts", lambda *_: iter(parts))
    monkeypatch.setattr(convert.plain, "graph", lambda part, opset: SimpleNamespace(name=f"{part.name} {opset}"))
    return seen


def test_graphs_lie_beside_their_configs_and_no_config_alone(manifest, exporting, tmp_path):
    said = []
    convert.convert(None, manifest, "optimum", tmp_path / "out", said.append)
    assert exporting == list(ENTRIES)
    assert said[0] == "export text_encoder, operator set 20"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(ENTRIES)
    assert (tmp_path / "out/unet/model.onnx").read_text() == "unet 20"


def test_a_package_has_a_manifest(manifest, exporting, tmp_path):
    (tmp_path / "out").mkdir()
    convert.convert(None, manifest, "ortpackage", tmp_path / "out", exporting.append)
    assert list(json.loads((tmp_path / "out/manifest.json").read_text())["components"]) == list(ENTRIES)


def test_what_fails_leaves_nothing(manifest, exporting, tmp_path, monkeypatch):
    def fails(*_):
        raise UnsupportedError("no room")

    monkeypatch.setattr(convert, "save", fails)
    with pytest.raises(UnsupportedError, match="no room"):
        convert.convert(None, manifest, "optimum", tmp_path / "out", exporting.append)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_holds_something_is_not_written_over(manifest, tmp_path):
    (tmp_path / "out").mkdir()
    convert.require(SD, manifest, tmp_path / "out")
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UnsupportedError, match="is there and not empty"):
        convert.require(SD, manifest, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").touch()
    with pytest.raises(UnsupportedError, match="is there and not empty"):
        convert.require(SD, manifest, tmp_path / "out")


def test_another_pipeline_is_refused_by_its_name(manifest, tmp_path):
    with pytest.raises(UnsupportedError, match=r"of StableDiffusionPipeline and StableDiffusionXLPipeline, .* by FluxPipeline"):
        convert.require("FluxPipeline", manifest, tmp_path / "out")


def test_prompts_that_the_tools_would_read_otherwise_are_refused(tmp_path):
    bundle = small.make(tmp_path / "bundle")
    longer = bundle.manifest.tokenizers["tokenizer"].model_copy(update={"chunks": 2})
    chunked = write(bundle.folder, draft(bundle.manifest, tokenizers={"tokenizer": longer}))
    with pytest.raises(UnsupportedError, match="tokenizer reads prompts in chunks or with weights"):
        convert.require(SD, chunked.manifest, tmp_path / "out")


def test_it_says_how_to_draw_and_what_is_not_carried(manifest):
    *others, asked = convert.notes(manifest, {})
    assert not others
    assert asked == "draw with num_inference_steps=2, height=32, width=32, guidance_scale=2"
    half = manifest.parts["unet"].model_copy(update={"precision": "fp16"})
    other = manifest.model_copy(update={"parts": {**manifest.parts, "unet": half}})
    notes = convert.notes(other, {"eta": 1.0})
    assert notes[0] == "unet is fp16 in the bundle and fp32 here"
    assert notes[1].startswith("steps are taken with eta=1 in the bundle")
