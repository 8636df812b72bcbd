"""Where what a recipe names is looked for, and that a path which only has the name is not taken for it."""

import shutil
from pathlib import Path

import pytest

from engines.bundle import Bundle
from engines.errors import RecipeError, UnsupportedError
from exporter.bench.diffusers import source
from exporter.models import checkpoint, classifier, compatibility, hub, locate, lora, resolve
from exporter.models.compatibility import NetworkSource
from exporter.recipe.schema import LoraOptions, ModelOptions
from exporter.training import context
from tests.engines import small

NAMES = ["bk-sdm-tiny", "koala-700m"]


class HubAskedError(Exception):
    pass


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A bundle's folder of an architecture's name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return small.make(tmp_path / "bk-sdm-tiny")


@pytest.fixture
def no_hub(monkeypatch):
    """A hub where every question is an error of its own."""

    def asked(repo, *_, **__):
        raise HubAskedError(repo)

    for name in ("fetch", "fetch_network", "fetch_file"):
        monkeypatch.setattr(hub, name, asked)


@pytest.mark.parametrize("root", [".", "elsewhere"])
@pytest.mark.usefixtures("bundle")
def test_a_bundle_is_not_the_architecture_of_its_name(tmp_path, root):
    found = resolve.resolve(ModelOptions(source="bk-sdm-tiny", weights="random"), tmp_path / root)
    assert found.provenance["source"] == "bk-sdm-tiny"
    assert found.configs["unet"]["cross_attention_dim"] == 768


def test_a_bundle_of_the_architectures_name_has_its_source_found(bundle, tmp_path):
    text = (
        "model: {source: bk-sdm-tiny, weights: random}\nsampler: {steps: [4], guidance: {mode: classifier_free, scale: 2}}\n"
        "shapes: {height: [64, 64, 64], width: [64, 64, 64]}\n"
    )
    told = Bundle(bundle.folder, bundle.manifest.model_copy(update={"recipe": text, "name": "bk-sdm-tiny"}))
    assert source(told)[1].checkpoint.provenance["source"] == "bk-sdm-tiny"
    assert source(told, tmp_path)[1].checkpoint.provenance["source"] == "bk-sdm-tiny"


def test_weights_asked_of_an_architecture_say_what_lies_there_under_its_name(bundle, tmp_path):
    with pytest.raises(RecipeError, match=rf"no weights of its own \({bundle.folder} holds a bundle\); set model.weights"):
        resolve.resolve(ModelOptions(source="bk-sdm-tiny"), tmp_path)
    (tmp_path / "koala-700m").mkdir()
    with pytest.raises(RecipeError, match=rf"\({tmp_path}/koala-700m holds no model\)"):
        resolve.resolve(ModelOptions(source="koala-700m"), tmp_path)


@pytest.mark.usefixtures("bundle")
def test_a_network_that_is_swapped_in_is_looked_for_alike(tmp_path):
    own = resolve.resolve(ModelOptions(source="bk-sdm-tiny", weights="random"), tmp_path)
    step = NetworkSource(source="bk-sdm-tiny", weights="random", seed=1)
    assert compatibility.borrow(step, "unet", own, tmp_path, "x").seed == 1
    with pytest.raises(RecipeError, match=r"x\.source: .* holds a bundle\); set weights: random"):
        compatibility.borrow(NetworkSource(source="bk-sdm-tiny"), "unet", own, tmp_path, "x")
    with pytest.raises(RecipeError, match="holds a bundle"):  # a teacher is a model, with weights
        compatibility.teacher("bk-sdm-tiny", own, tmp_path, "x")


@pytest.mark.usefixtures("no_hub")
def test_what_has_no_architectures_goes_on_to_the_hub(bundle, tmp_path):
    shutil.copytree(bundle.folder, tmp_path / "owner" / "name")
    with pytest.raises(HubAskedError, match="owner/name"):
        resolve.resolve(ModelOptions(source="owner/name"), tmp_path)
    with pytest.raises(HubAskedError, match="owner/name"):
        classifier.find("owner/name", None, tmp_path, "x")
    with pytest.raises(HubAskedError, match="owner/name"):
        lora.resolve(ModelOptions(source="x/y", loras=[LoraOptions(source="owner/name")]), tmp_path, {})


@pytest.mark.usefixtures("no_hub")
def test_a_folder_that_can_only_be_meant_says_what_it_lacks(tmp_path):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "model.ckpt").touch()
    with pytest.raises(UnsupportedError, match=r"model\.ckpt"):
        resolve.resolve(ModelOptions(source="owner/name"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnsupportedError, match=r"has no model_index\.json"):
        resolve.resolve(ModelOptions(source="./empty"), tmp_path)


def test_beside_the_recipe_comes_before_the_working_directory(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "model_index.json").write_text("{}")
    monkeypatch.chdir(here)
    assert locate.find("model", there, "x") == there / "model"
    (there / "model" / "model_index.json").unlink()
    assert locate.find("model", there, "x") == Path("model")  # the other holds no model


@pytest.mark.parametrize(
    "name", ["nowhere", "x" * 5000, "a\0b", "~nobody-of-this-name/x", "", ".", "a/b/c", "owner/x.safetensors"]
)
def test_names_of_nothing_are_sentences(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(RecipeError, match=r"x: .* is neither a file or folder")
        if name not in {"", "."}
        else pytest.raises(UnsupportedError, match=r"model_index")
    ):
        found = locate.find(name, tmp_path, "x", NAMES)
        checkpoint._folder(found, {}, None, None)


def test_a_saved_data_set_is_told_from_a_folder_of_its_name(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root" / "set").mkdir(parents=True)
    rows = datasets.Dataset.from_dict(
        {"image": [], "text": []}, features=datasets.Features(image=datasets.Image(), text=datasets.Value("string"))
    )
    rows.save_to_disk(str(tmp_path / "set"))
    assert locate.first(locate.candidates("set", tmp_path / "root"), locate.holds_saved_data) == Path("set")


def test_pictures_beside_the_recipe_come_first(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    places = locate.candidates("set", tmp_path / "root")
    shutil.copytree(data, tmp_path / "set")
    assert locate.first(places, context.captioned_images.there) == Path("set")
    shutil.copytree(data, tmp_path / "root" / "set")
    assert locate.first(places, context.captioned_images.there) == tmp_path / "root" / "set"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("https://huggingface.co/owner/name/tree/main", "; write the hub id: owner/name"),
        ("hf://owner/name", "; write the hub id: owner/name"),
        ("https://civitai.com/models/1", "; download the file, and name that"),
        ("~/models/x", f"; write the place out: {Path('~/models/x').expanduser()}"),
        ("owner/name@main", "; write owner/name, and revision: main beside it"),
    ],
)
def test_what_is_meant_otherwise_is_told_how_to_write(name, told, tmp_path):
    with pytest.raises(RecipeError) as caught:
        locate.find(name, tmp_path, "model.source", ["sd-v1-5"])
    assert caught.value.problems[0].endswith(told)
