"""Pairs of encoders: their own directions, whatever else is looked at with a picture, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from engines.errors import RecipeError, UnsupportedError
from exporter.models import hub
from exporter.models.dual_encoder import DualEncoder
from tests.exporter import models

TEXTS = ["a red circle", "a blue square", "nothing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return models.save_dual_encoder(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3)).astype(np.uint8)


def test_directions_are_the_networks_own(folder, images):
    pair = DualEncoder.find(str(folder), None, None, folder)
    network, prepare = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    given = prepare(text=TEXTS, images=[Image.fromarray(each) for each in images], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        logits = network(**given).logits_per_image / network.logit_scale.exp()
    cosines = pair.pictures(images) @ pair.texts(TEXTS).T
    assert np.ptp(cosines) > 0.05  # else nothing would be compared
    assert cosines == pytest.approx(logits.numpy(), abs=1e-5)
    assert pair.pictures(images[1:2]) == pytest.approx(pair.pictures(images)[1:2], abs=1e-6)


def test_more_words_than_an_encoder_reads_are_cut(folder):
    pair = DualEncoder.find(str(folder), None, None, folder)
    assert pair.texts(["red " * 50]) == pytest.approx(pair.texts(["red " * 60]), abs=1e-6)


def test_its_digest_is_of_all_files(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    digest = DualEncoder.find(str(folder), None, None, folder).digest
    assert DualEncoder.find(str(other), None, None, folder).digest == digest
    config = other / "preprocessor_config.json"
    config = config if config.is_file() else other / "processor_config.json"
    config.write_text(config.read_text().replace("16", "8"))
    assert DualEncoder.find(str(other), None, None, folder).digest != digest


def test_a_hub_id_is_fetched_with_what_prepares_its_inputs(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "fetch_network", lambda *given, **more: asked.append((given, more)) or hub.Fetched(folder, "c0ffee"))
    assert DualEncoder.find("owner/pair", "owner/eyes", "main", folder).processor == folder
    assert [given[:2] for given, _ in asked] == [("owner/pair", "main"), ("owner/eyes", None)]
    assert {"preprocessor_config.json", "tokenizer.json"} <= {*asked[0][1]["beside"]}


def test_what_is_no_pair(folder, tmp_path):
    with pytest.raises(UnsupportedError, match="holds no encoders of pictures and texts"):
        DualEncoder.find(str(models.save_classifier(tmp_path / "eye")), None, None, tmp_path)
    bare = shutil.copytree(folder, tmp_path / "bare")
    for name in ("preprocessor_config.json", "processor_config.json"):
        (bare / name).unlink(missing_ok=True)
    with pytest.raises(UnsupportedError, match=r"has no preprocessor_config\.json.*\n.*processor: openai"):
        DualEncoder.find("bare", None, None, tmp_path)
    assert DualEncoder.find("bare", str(folder), None, tmp_path).processor == folder
    config = json.loads((bare / "config.json").read_text())
    (bare / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.y"}}))
    with pytest.raises(UnsupportedError, match="holds no encoders"):
        DualEncoder.find("bare", str(folder), None, tmp_path)
    with pytest.raises(RecipeError, match="model: 'a pair' is neither"):
        DualEncoder.find("a pair", None, None, tmp_path)


def test_a_network_that_lacks_weights_is_not_filled_by_chance(folder, tmp_path, images):
    from safetensors.torch import load_file, save_file

    lame = shutil.copytree(folder, tmp_path / "lame")
    weights = load_file(lame / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, lame / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedError, match=r"lacks 1 weights of its network, visual_projection\.weight"):
        DualEncoder.find("lame", None, None, tmp_path).pictures(images)
