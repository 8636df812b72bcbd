"""LoRAs chosen for each request, and for each image of a batch."""

from contextlib import contextmanager

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from engines import __main__ as program
from engines.errors import UnsupportedError
from engines.parallel.picard import Picard
from engines.pipeline import Pipeline
from tests.engines import small
from tests.engines.lora import networks
from tests.engines.lora.networks import saved, tensors

PROMPTS = ["a red square", "the blue sea", "a circle"]


@pytest.fixture
def bundle(tmp_path):
    return networks.bundle(tmp_path / "bundle")


@pytest.fixture
def pipeline(bundle):
    return Pipeline(bundle, networks.networks(bundle))


@pytest.fixture
def files(tmp_path):
    return [saved(tmp_path / f"{name}.safetensors", tensors(seed=seed)) for seed, name in enumerate(("style", "colour"))]


def pixels(pictures):
    return [np.asarray(made) for made in pictures]


def test_a_lora_then_another_then_none_gives_the_first_picture_again(pipeline, files):
    plain, first, second, after = (pixels(pipeline.generate(PROMPTS, loras=loras)) for loras in ([], files[:1], files[1:], []))
    for before, one, two, again in zip(plain, first, second, after, strict=True):
        assert np.array_equal(before, again)
        assert not np.array_equal(before, one)
        assert not np.array_equal(one, two)


def test_every_image_has_its_own(pipeline, files):
    loras = [(files[0], [1.0, 0.0, 0.5]), (files[1], [0.0, 0.0, -1.0])]
    together = pipeline.generate(PROMPTS, seed=3, loras=loras)
    for index, made in enumerate(together):
        own = [(file, scales[index]) for file, scales in loras]
        (alone,) = pipeline.generate(PROMPTS[index], seed=3 + index, loras=own)
        np.testing.assert_allclose(np.asarray(made, np.int16), np.asarray(alone, np.int16), atol=1)
        told = {key: value for key, value in made.info.items() if key.startswith("lora_")}
        assert told == {key: value for key, value in alone.info.items() if key.startswith("lora_")}
        assert len(told) == sum(scale != 0 for _, scale in own)
    (plain,) = pipeline.generate(PROMPTS[1], seed=4)
    assert np.array_equal(np.asarray(together[1]), np.asarray(plain))


def test_factors_are_the_same_objects_at_every_step_and_are_not_split_with_the_batch(bundle, files):
    seen = []
    Pipeline(bundle, networks.networks(bundle, seen)).generate(
        [*PROMPTS, "a", "red"], steps=2, loras=[(files[0], [1, 2, 3, 4, 5])]
    )
    assert [len(inputs["latent"]) for inputs in seen] == [2, 2, 1] * 2
    assert len({id(inputs["lora_a_0"]) for inputs in seen}) == 1
    assert [inputs["lora_scale"][:, 0].tolist() for inputs in seen[:3]] == [[1, 2], [3, 4], [5]]


def test_parallel_sampling_scales_by_image(pipeline, files):
    loras = [(files[0], [1.0, 0.0, 0.5])]
    usual = pixels(pipeline.generate(PROMPTS, loras=loras))
    parallel = pixels(pipeline.generate(PROMPTS, loras=loras, parallel=Picard(window=2, tolerance=1e-4)))
    for one, other in zip(usual, parallel, strict=True):
        np.testing.assert_allclose(one.astype(int), other.astype(int), atol=1)


def test_what_is_refused_is_refused_before_a_network_runs(tmp_path, files):
    bundle, calls = small.make(tmp_path / "plain"), []
    with pytest.raises(UnsupportedError, match="built without LoRAs at run time"):
        Pipeline(bundle, small.networks(bundle, calls)).generate("a", loras=files[:1])
    assert not calls


def test_the_command_line(bundle, monkeypatch, tmp_path, files):
    @contextmanager
    def opened(*_, **__):
        yield Pipeline(bundle, networks.networks(bundle))

    monkeypatch.setattr(Pipeline, "open", opened)

    def run(*arguments):
        return CliRunner().invoke(program.generate, [str(bundle.folder), *map(str, arguments)])

    out = tmp_path / "p.png"
    done = run(*PROMPTS, "-o", out, "--seed", 3, "--lora", f"{files[0]}:1,0,0.5", "--lora", f"{files[1]}:0.25")
    assert done.exit_code == 0, done.output
    pipeline = Pipeline(bundle, networks.networks(bundle))
    wanted = pipeline.generate(PROMPTS, seed=3, loras=[(files[0], [1, 0, 0.5]), (files[1], 0.25)])
    for index, picture in enumerate(wanted, 1):
        with Image.open(tmp_path / f"p-{index}.png") as read:
            np.testing.assert_allclose(np.asarray(read, np.int16), np.asarray(picture, np.int16), atol=1)
    again = run("--from", tmp_path / "p-3.png", "-o", tmp_path / "again.png")
    assert "made with LoRAs. Give them again: --lora style.safetensors:0.5" in str(again.exception)
    assert "--lora colour.safetensors:0.25" in str(again.exception)
    again = run(
        "--from", tmp_path / "p-3.png", "-o", tmp_path / "again.png", "--lora", f"{files[0]}:0.5", "--lora", f"{files[1]}:0.25"
    )
    assert again.exit_code == 0, again.exception
    one, other = (np.asarray(Image.open(tmp_path / name), np.int16) for name in ("again.png", "p-3.png"))
    np.testing.assert_allclose(one, other, atol=1)
    for wish, told in (("nan", "not a number"), ("much", "is no scale"), ("1,2", "2 scale of style.safetensors")):
        assert told in str(run(*PROMPTS, "-o", out, "--lora", f"{files[0]}:{wish}").exception)
