"""Networks that see pictures: their own numbers, whether TorchScript's or transformers', and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from engines.errors import RecipeError, UnsupportedError
from exporter.models.dual_encoder import DualEncoder
from exporter.models.feature_network import FeatureNetwork
from tests.exporter import models
from tests.exporter.scores import seen


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("networks")
    models.save_classifier(made / "eye")
    models.save_dual_encoder(made / "pair")
    return made


IMAGES = seen.pictures(40, 0, side=20)


def test_a_torchscript_file_is_asked_for_features_or_for_classes(root):
    network = seen.save_network(root / "few.pt")
    for classifies, word in ((False, "return_features"), (True, "no_output_bias")):
        found = FeatureNetwork.find("few.pt", None, root, classifies=classifies)
        rows = found.probabilities(IMAGES) if classifies else found.features(IMAGES)
        np.testing.assert_allclose(rows, seen.features(network, IMAGES, **{word: True}), rtol=1e-4, atol=1e-6)
    assert found.preparation == "resized inside few.pt"


def test_a_folder_of_transformers_is_asked_for_its_pooled_features(root):
    network, prepare = AutoModel.from_pretrained(root / "eye").eval(), AutoImageProcessor.from_pretrained(root / "eye")
    with torch.no_grad():
        given = prepare([Image.fromarray(each) for each in IMAGES], return_tensors="pt")
        wanted = network(**given).pooler_output.flatten(1).numpy()
    found = FeatureNetwork.find("eye", None, root)
    np.testing.assert_allclose(found.features(IMAGES), wanted, rtol=1e-4, atol=1e-6)
    assert found.preparation == "resized to 16"
    classes = FeatureNetwork.find("eye", None, root, classifies=True).probabilities(IMAGES)
    assert classes.shape == (40, 3)


def test_a_pair_of_encoders_gives_its_picture_side(root):
    found = FeatureNetwork.find("pair", None, root)
    rows = found.features(IMAGES)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, DualEncoder(root / "pair", root / "pair").pictures(IMAGES), rtol=1e-4, atol=1e-6)
    assert found.preparation == "resized to 16 by bicubic"
    assert found.digest != FeatureNetwork.find("eye", None, root).digest


def test_what_is_no_network_of_pictures_is_refused(root, tmp_path):
    with pytest.raises(RecipeError, match=r"'none\.pt' is neither"):
        FeatureNetwork.find("none.pt", None, root)
    (tmp_path / "bad.pt").write_bytes(b"no network")
    with pytest.raises(UnsupportedError, match=r"bad\.pt is no TorchScript file"):
        FeatureNetwork.find("bad.pt", None, tmp_path).features(IMAGES)
    (tmp_path / "bare").mkdir()
    config = json.loads((root / "eye" / "config.json").read_text())
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match=r"has no preprocessor_config\.json"):
        FeatureNetwork.find("bare", None, tmp_path)
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config | {"auto_map": {}}))
    with pytest.raises(UnsupportedError, match="code that comes with the model"):
        FeatureNetwork.find("bare", None, tmp_path)


def test_rows_that_are_no_probabilities_are_refused(root):
    seen.save_network(root / "few.pt")
    found = FeatureNetwork.find("few.pt", None, root, classifies=True)
    network = found._look
    object.__setattr__(found, "_look", lambda some: 2 * network(some))
    with pytest.raises(UnsupportedError, match="gives no probabilities of classes"):
        found.probabilities(IMAGES)
    with pytest.raises(TypeError, match="for its features"):
        FeatureNetwork.find("few.pt", None, root).probabilities(IMAGES)
