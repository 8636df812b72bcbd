"""A tiny decoder learns its pictures from the source's decoder; the other half of its VAE stays what it was."""

import json

import diffusers
import numpy as np
import pytest
import torch

from engines.errors import RecipeError, UnsupportedError
from exporter import build
from exporter.families.unets.wrappers import Decoder
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from exporter.stages.store import Store
from exporter.training.objectives.decoder import Decoding
from exporter.training.options import ImageLossWeights
from tests.exporter import models
from tests.exporter.lessons import rows

SWAP = {"weights": "random", "fields": {
    "_class_name": "AutoencoderTiny", "encoder_block_out_channels": [8] * 3, "decoder_block_out_channels": [16] * 3,
    "num_encoder_blocks": [1] * 3, "num_decoder_blocks": [1] * 3,
}}  # fmt: skip
DISTILL = {"steps": 4, "batch": 4, "learning_rate": 3e-3, "checkpoint_every": 2, "picture": {}}


@pytest.fixture(scope="module")
def recipe(text, data):
    """A recipe whose decoder has these passes."""

    def made(*, swap=SWAP, **changes):
        passes = [*([{"swap": swap}] if swap else []), {"distill": DISTILL | {"data": str(data)} | changes}]
        components = json.dumps({"vae_decoder": {"passes": passes}})
        return Recipe.parse(text, "taught", overrides=[f"components={components}"])

    return made


def taught(recipe, root):
    return build.distill(recipe, Store(root), lambda *_, **__: None)["vae_decoder"]


def weights(folder):
    return diffusers.AutoencoderTiny.from_pretrained(folder).state_dict()


def test_it_comes_nearer_to_the_source_s_pictures(recipe, tiny_sdxl, tmp_path):
    folder = taught(recipe(steps=150, ema=0.9, checkpoint_every=150), tmp_path)
    found = rows(folder)
    assert np.mean([row["absolute"] for row in found[-10:]]) < 0.6 * np.mean([row["absolute"] for row in found[:10]])
    teacher = Decoder(diffusers.AutoencoderKL.from_pretrained(tiny_sdxl, subfolder="vae")).eval()
    student, fresh = (Decoder(diffusers.AutoencoderTiny.from_pretrained(folder)).eval() for _ in range(2))
    (latents,) = tmp_path.rglob("latents.npy")
    with torch.no_grad():
        latent = torch.from_numpy(np.load(latents)).float()
        wanted, made = teacher(latent), student(latent)
        for value in fresh.parameters():
            value.copy_(torch.randn_like(value) * 0.05)
        assert (made - wanted).abs().mean() < 0.6 * (fresh(latent) - wanted).abs().mean()
    assert "pictures" in json.loads((folder / "metadata.json").read_text())["notes"][0]


def test_only_the_decoder_changes_and_the_folder_is_whole(recipe, tmp_path):
    chosen = recipe()
    folder = taught(chosen, tmp_path)
    plan = Plan(chosen)
    swap = next(stage for stage in plan.stages if stage.name == ("pass", "vae_decoder, swap"))
    before, after = weights(Store(tmp_path).folder(swap.key, lambda _: None)), weights(folder)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)


def test_a_killed_training_goes_on_as_if_nothing_had_been(recipe, tmp_path, monkeypatch):
    whole = taught(recipe(), tmp_path / "whole")
    draw = Decoding.draw

    def killed(self, share):
        if share == 3:
            raise KeyboardInterrupt
        return draw(self, share)

    monkeypatch.setattr(Decoding, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        taught(recipe(), tmp_path / "cut")
    monkeypatch.setattr(Decoding, "draw", draw)
    cut = taught(recipe(), tmp_path / "cut")
    assert rows(cut) == rows(whole)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(cut).items())


def test_captions_are_not_encoded(recipe, tmp_path):
    taught(recipe(steps=1), tmp_path)
    (latents,) = tmp_path.rglob("latents.npy")
    assert [file.name for file in latents.parent.glob("*.npy")] == ["latents.npy"]


def test_each_difference_counts_by_its_weight():
    made, wanted = torch.rand(2, 1, 4, 4, 3)

    class Of:
        def eval(self):
            return self

        def __call__(self, _latent):
            return wanted

    losses = Decoding.__new__(Decoding)
    losses._weights, losses._teacher = ImageLossWeights(absolute=2.0, squared=3.0, edges=5.0), Of()
    found = {name: float(value) for name, value in losses(lambda _: made, made).items()}
    off = (made - wanted).numpy()
    edges = np.abs(np.diff(off, axis=1)).mean() + np.abs(np.diff(off, axis=2)).mean()
    assert found["absolute"] == pytest.approx(np.abs(off).mean(), rel=1e-5)
    assert found["squared"] == pytest.approx((off**2).mean(), rel=1e-5)
    assert found["edges"] == pytest.approx(edges, rel=1e-5)
    assert found["loss"] == pytest.approx(2 * found["absolute"] + 3 * found["squared"] + 5 * found["edges"], rel=1e-5)


def test_a_pixel_out_of_range_still_learns():
    decoder = Decoder(models.tiny_vae())
    latent = torch.full((1, 4, 4, 4), 3.0)
    decoder.vae.decoder.layers[-1].bias.data += 5  # every pixel far too bright
    decoder.train()(latent).sum().backward()
    assert decoder.vae.decoder.layers[-1].bias.grad.abs().min() > 0
    assert decoder.train()(latent).max() > 1
    assert decoder.eval()(latent).max() == 1


@pytest.mark.parametrize(
    ("error", "changes", "said"),
    [
        (UnsupportedError, {"picture": None}, "a decoder learns from pictures"),
        (UnsupportedError, {"features": "resnet"}, "distill.features is for UNets"),
        (RecipeError, {"swap": None}, "has no student that differs from the source; put a swap before it"),
    ],
)
def test_what_a_decoder_cannot_learn_is_said_before_time_is_spent(recipe, error, changes, said):
    with pytest.raises(error, match=said):
        Plan(recipe(**changes)).refuse()


def test_a_unet_makes_no_pictures_and_an_encoder_is_not_taught(text, data):
    distill = json.dumps({"distill": DISTILL | {"data": str(data)}})
    with pytest.raises(UnsupportedError, match="a UNet makes none"):
        Plan(Recipe.parse(text, "taught", overrides=[f"components.unet.passes=[{distill}]"])).refuse()
    with pytest.raises(RecipeError, match="teaches UNets and VAE decoders"):
        Plan(Recipe.parse(text, "taught", overrides=[f"components.text_encoder.passes=[{distill}]"]))


def test_weights_that_are_all_zero():
    with pytest.raises(ValueError, match="nothing to learn"):
        ImageLossWeights(absolute=0.0)
