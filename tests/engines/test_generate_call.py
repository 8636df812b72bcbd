"""A run that stops between two steps, and another that goes on from it, by the API and by the command line."""

from contextlib import nullcontext

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from engines.__main__ import generate
from engines.errors import UnsupportedError
from engines.pipeline import Pipeline
from tests.engines import small

ASKED = {"seed": 3, "guidance_scale": 2.0}


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(small.make(tmp_path / "bundle", handover=True), small.functions())


def test_what_stops_and_what_goes_on_are_the_whole(pipeline):
    left = pipeline.latents("a red square", **ASKED, denoising_end=0.3)
    last = pipeline.latents("a red square", **ASKED, image=left, denoising_start=0.3)
    assert left.shape == (1, 4, 4, 4)
    assert np.abs(left - last).max() > 0.1
    one = pipeline.latents(["a red square", "the sea"], **ASKED, denoising_end=0.3)
    np.testing.assert_array_equal(one[:1], left)
    both = pipeline.latents(["a red square", "the sea"], **ASKED, image=one, denoising_start=0.3)
    np.testing.assert_allclose(both[:1], last, atol=1e-6)
    picture = pipeline.generate("a red square", **ASKED, image=left, denoising_start=0.3)[0]
    np.testing.assert_array_equal(np.asarray(picture), (pipeline.decode(last)[0] * 255).round().astype(np.uint8))
    assert picture.info["denoising_start"] == "0.3"


def test_in_diffusers_words_it_is_the_same(pipeline):
    left = pipeline("a red square", generator=3, denoising_end=0.3, output_type="latent").images
    np.testing.assert_array_equal(left, pipeline.latents("a red square", seed=3, denoising_end=0.3))
    given = {"generator": 3, "denoising_start": 0.3, "output_type": "latent"}
    last = pipeline("a red square", image=left, **given).images
    np.testing.assert_array_equal(last, pipeline.latents("a red square", seed=3, image=left, denoising_start=0.3))
    np.testing.assert_array_equal(last, pipeline("a red square", image=list(left), **given).images)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"denoising_end": 1.5}, "denoising_end 1.5 is out of range"),
        ({"denoising_start": 0.3}, "there are none"),
        ({"denoising_start": 0.5, "denoising_end": 0.5, "image": np.zeros((1, 4, 4, 4))}, "is not before denoising_end 0.5"),
        ({"denoising_start": 0.3, "image": Image.new("RGB", (32, 32))}, "a Image was given"),
        ({"denoising_start": 0.3, "image": np.zeros((1, 4, 4, 4)), "strength": 0.5}, "strength is of an image"),
        ({"denoising_start": 0.3, "image": np.zeros((1, 4, 3, 4))}, "height 24: this bundle makes pictures"),
        ({"image": np.zeros((1, 4, 4, 4))}, "denoising_start with it"),
        ({"denoising_end": 0.3, "sampler": "ode"}, "only compiled samplers stop or begin"),
    ],
)
def test_what_cannot_be_is_told(pipeline, given, told):
    with pytest.raises(UnsupportedError, match=told):
        pipeline.latents("a red square", **given)


def test_a_bundle_that_was_built_without_says_what_to_build(tmp_path):
    with pytest.raises(UnsupportedError, match="`handover: true` in its recipe's sampler"):
        Pipeline(small.make(tmp_path / "bundle"), small.functions()).latents("a", denoising_end=0.3)


def test_a_picture_to_start_from_takes_all_steps(tmp_path):
    pipeline = Pipeline(small.make(tmp_path / "bundle", encoder=True, handover=True), small.functions())
    with pytest.raises(UnsupportedError, match="and not from an image"):
        pipeline.latents("a", image=Image.new("RGB", (32, 32)), denoising_end=0.3)


def test_an_argument_that_generate_has_not_is_none_of_latents(pipeline):
    with pytest.raises(TypeError, match="sede"):
        pipeline.latents("a", sede=3)


def test_latents_go_through_a_file(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr("engines.sessions.opened", lambda *_, **__: nullcontext((small.functions(), "", [])))
    folder, latents = str(pipeline.bundle.folder), tmp_path / "left.npy"

    def run(*arguments):
        return CliRunner().invoke(generate, [folder, *map(str, arguments)], catch_exceptions=False)

    asked = ("a red square", "the sea", "red", "--seed", 3)
    assert run(*asked, "--denoising-end", 0.3, "-o", latents).output.strip().endswith("left.npy")
    left = np.load(latents)
    np.testing.assert_allclose(left, pipeline.latents([*asked[:3]], seed=3, denoising_end=0.3), atol=1e-6)
    assert run(*asked, "--denoising-start", 0.3, "--image", latents, "-o", tmp_path / "p.png").exit_code == 0
    wanted = pipeline.generate([*asked[:3]], seed=3, image=left, denoising_start=0.3)
    for index, picture in enumerate(wanted, 1):
        with Image.open(tmp_path / f"p-{index}.png") as made:
            np.testing.assert_array_equal(np.asarray(made), np.asarray(picture))
    again = run("--from", tmp_path / "p-2.png", "--image", tmp_path / "one.npy", "-o", tmp_path / "again.png")
    assert again.exit_code != 0
    np.save(tmp_path / "one.npy", left[1:2])
    assert run("--from", tmp_path / "p-2.png", "--image", tmp_path / "one.npy", "-o", tmp_path / "again.png").exit_code == 0
    with Image.open(tmp_path / "again.png") as made:
        np.testing.assert_array_equal(np.asarray(made), np.asarray(wanted[1]))
    assert run("a", "-o", latents, "--previews", tmp_path / "steps").exit_code != 0
