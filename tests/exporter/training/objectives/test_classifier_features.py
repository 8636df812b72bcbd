"""Rounds that compare what a frozen classifier sees: its own features, of the decoder's own pictures, and what is refused."""

import json
import shutil

import pytest
import torch
from torch.nn import functional as F
from transformers import ResNetForImageClassification, ViTConfig, ViTForImageClassification

from engines.errors import RecipeError, UnsupportedError
from exporter.families import claim
from exporter.models.classifier import find
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions, Recipe
from exporter.stages.plan import Plan
from exporter.training.objectives.classifier_features import ClassifierFeatureLoss
from tests.exporter import models
from tests.exporter.lessons import learns, rows, train


@pytest.fixture(scope="module")
def eye(tmp_path_factory):
    return models.save_classifier(tmp_path_factory.mktemp("eye"))


@pytest.fixture
def decoder(tiny_sdxl, text):
    return claim(resolve(ModelOptions(source=str(tiny_sdxl)), tiny_sdxl), Recipe.parse(text, "x")).part("vae_decoder", "fp32")


def sight(folder, decoder, temperature=1.0):
    made = ClassifierFeatureLoss(find(str(folder), None, folder, "x"), decoder, temperature)
    made.settle(torch.device("cpu"))
    return made


def taught(text, data, eye, **changes):
    options = {"data": str(data), "steps": 10, "batch": 8, "learning_rate": 1e-3, "grid": [8, 4, 2], "guidance": 3.0}
    return learns(text, {"progressive": options | {"classifier": {"source": str(eye)} | changes}})


def test_features_are_the_classifiers_own(eye, decoder):
    latent = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    found = sight(eye, decoder).features(latent)
    pictures = decoder.module(latent).permute(0, 3, 1, 2)  # uncut: the decoder is in training by now
    assert pictures.min() < 0 or pictures.max() > 1
    small = F.interpolate(pictures, (16, 16), mode="bilinear", antialias=True)
    scaled = (small - torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1)) / torch.tensor([0.25, 0.2, 0.1]).reshape(3, 1, 1)
    expected = ResNetForImageClassification.from_pretrained(eye).resnet(scaled).pooler_output.flatten(1)
    assert found.shape == (2, 6)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_transformers_features_are_what_its_head_takes(tmp_path, decoder):
    config = ViTConfig(
        image_size=16, patch_size=8, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    ViTForImageClassification(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 16, "width": 16}, "do_normalize": False}))
    assert sight(tmp_path, decoder).features(torch.zeros(2, 4, 8, 8)).shape == (2, 12)


def test_the_divergence_is_nothing_for_the_same_picture(eye, decoder):
    latent = 5 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert float(sight(eye, decoder)(latent, latent)) == pytest.approx(0, abs=1e-6)
    assert sight(eye, decoder, 0.5)(latent, latent) > 0  # the teacher's is sharper


def test_following_its_gradient_makes_the_pictures_alike(eye, decoder):
    wanted, start = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    seen, found = sight(eye, decoder), start.clone().requires_grad_()
    optimizer = torch.optim.Adam([found], lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        loss = seen(found, wanted)
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * seen(start, wanted)


def test_the_last_rounds_learn_by_features(text, data, eye, tmp_path):
    curve = rows(train(taught(text, data, eye, rounds=1, latent=0.5), tmp_path))
    first, last = ([row for row in curve if row["round"] == number] for number in (1, 2))
    assert "features" not in first[0]
    assert last[0]["loss"] == pytest.approx(last[0]["features"] + 0.5 * last[0]["latent"])


def test_another_classifier_is_another_training(text, data, eye, tmp_path):
    def key(folder):
        return {stage.verb: stage.key.digest for stage in Plan(taught(text, data, folder)).stages}["pass"]

    other = shutil.copytree(eye, tmp_path / "other")
    before = key(other)
    (other / "preprocessor_config.json").write_text((eye / "preprocessor_config.json").read_text().replace("16", "24"))
    changed = key(other)
    models.save_classifier(other, labels=4, size=24)
    assert len({before, changed, key(other)}) == 3


@pytest.mark.parametrize(
    ("told", "message"),
    [({"size": None}, "lacks size"), ({"image_std": None, "size": 16}, "lacks size, image_mean or image_std")],
)
def test_a_classifier_that_does_not_say_how_it_wants_its_pictures(tmp_path, decoder, told, message):
    folder = models.save_classifier(tmp_path)
    known = json.loads((folder / "preprocessor_config.json").read_text()) | told
    (folder / "preprocessor_config.json").write_text(json.dumps({key: value for key, value in known.items() if value}))
    with pytest.raises(UnsupportedError, match=message):
        sight(folder, decoder)


def test_what_is_no_classifier(text, data, eye, tiny_sdxl, tmp_path, decoder):
    with pytest.raises(RecipeError, match=r"unet.passes.0.progressive.classifier.source: 'nowhere' is neither a folder"):
        list(Plan(taught(text, data, "nowhere")).stages)
    with pytest.raises(UnsupportedError, match="holds no image classifier"):
        list(Plan(taught(text, data, tiny_sdxl / "text_encoder")).stages)
    with pytest.raises(RecipeError, match=r"classifier.rounds: 3, but this grid has 2"):
        taught(text, data, eye, rounds=3)
    with pytest.raises(UnsupportedError, match="does not end in a linear layer"):
        sight(models.save_classifier(tmp_path, labels=0), decoder)
    (tmp_path / "preprocessor_config.json").rename(tmp_path / "aside.json")
    with pytest.raises(UnsupportedError, match=r"has no preprocessor_config.json, .*\n  Save the image processor"):
        sight(tmp_path, decoder)
    (tmp_path / "aside.json").rename(tmp_path / "preprocessor_config.json")
    config = json.loads((eye / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))  # with a head that was not saved
    with pytest.raises(UnsupportedError, match=r"lacks 2 weights of its network, classifier.1.bias among them"):
        sight(tmp_path, decoder)
