"""A classifier is found by folder or hub id, and is one of transformers' own with its preprocessor."""

import json

import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter.models import classifier, hub

CONFIG = {"architectures": ["ResNetForImageClassification"], "num_labels": 3}


def write(folder, config=CONFIG, *, told=True):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    if told:
        (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    return folder


def test_a_folder_beside_the_recipe_comes_first(tmp_path, monkeypatch):
    write(tmp_path / "beside" / "eye")
    write(tmp_path / "cwd" / "eye", CONFIG | {"num_labels": 9})
    monkeypatch.chdir(tmp_path / "cwd")
    found = classifier.find("eye", None, tmp_path / "beside", "x")
    assert found.configs[classifier.CLASSIFIER] == CONFIG
    assert found.configs["model_index"] == {"classifier": ["transformers", "ResNetForImageClassification"]}
    assert found.configs[classifier.PREPROCESSOR] == {"image_mean": [0.5]}
    assert dict(found.provenance) == {"source": "eye"}
    assert found.files["classifier"] == (tmp_path / "beside" / "eye" / "model.safetensors",)
    assert classifier.find("eye", None, tmp_path, "x").configs["classifier"]["num_labels"] == 9


def test_a_hub_id_is_fetched_with_its_preprocessor(tmp_path, monkeypatch):
    folder, asked = write(tmp_path / "eye"), []
    fetched = hub.Fetched(folder, "c0ffee")
    monkeypatch.setattr(hub, "fetch_network", lambda *given, **more: asked.append((given, more)) or fetched)
    found = classifier.find("owner/eye", "main", tmp_path / "root", "x")
    assert dict(found.provenance) == {"source": "owner/eye", "revision": "c0ffee"}
    assert asked == [(("owner/eye", "main", "classifier"), {"weights": True, "beside": ["preprocessor_config.json"]})]


@pytest.mark.parametrize(
    ("config", "told", "message"),
    [
        ({"architectures": ["ResNetModel"]}, True, r"holds no image classifier: its config\.json names \['ResNetModel'\]"),
        ({}, True, "its config.json names None"),
        (CONFIG | {"auto_map": {}}, True, "its classifier is code that comes with the model, and none is run"),
        (CONFIG, False, "has no preprocessor_config.json, so nothing says how"),
    ],
)
def test_what_is_no_classifier(tmp_path, config, told, message):
    write(tmp_path / "eye", config, told=told)
    with pytest.raises(UnsupportedError, match=message):
        classifier.find("eye", None, tmp_path, "x")


def test_a_name_that_is_nothing(tmp_path):
    with pytest.raises(RecipeError, match=r"unet\.classifier: 'an eye' is neither a folder .* nor a hub id \(owner/name\)"):
        classifier.find("an eye", None, tmp_path, "unet.classifier")
