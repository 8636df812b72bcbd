"""diffusers' idiom beside diffusers: its arguments, and torch's generators."""

import inspect

import diffusers
import numpy as np
import pytest
import torch

from engines import diffusers_words
from engines.errors import UnsupportedError
from engines.images.torch_noise import TorchNoise
from engines.pipeline import Pipeline
from tests.engines import small


@pytest.fixture
def pipeline(tmp_path):
    bundle = small.make(tmp_path / "small")
    return Pipeline(bundle, small.networks(bundle))


def images(output):
    return np.stack([np.asarray(one) for one in output.images])


@pytest.mark.parametrize(
    "kind",
    [
        f"StableDiffusion{version}{task}Pipeline"
        for version in ("", "XL")
        for task in ("", "Img2Img", "Inpaint")
    ],
)  # fmt: skip
def test_every_argument_of_diffusers_is_taken_or_refused_by_name(kind):
    theirs = inspect.signature(getattr(diffusers, kind).__call__).parameters
    ours = {*inspect.signature(Pipeline.__call__).parameters, *diffusers_words.CALLING}
    assert set(theirs) - {"kwargs"} - ours <= {"aesthetic_score", "negative_aesthetic_score"}  # the refiner's


def test_a_default_of_diffusers_asks_for_nothing():
    for kind in (diffusers.StableDiffusionPipeline, diffusers.StableDiffusionXLPipeline):
        for name, parameter in inspect.signature(kind.__call__).parameters.items():
            if name in diffusers_words.CALLING:
                assert diffusers_words.known({name: parameter.default}, diffusers_words.CALLING, []) == {}


def test_a_generator_of_torch_draws_its_own_noise(pipeline):
    made = pipeline("a", generator=torch.Generator().manual_seed(6))
    noise = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(6))
    np.testing.assert_allclose(images(made), images(pipeline("a", latents=noise)), atol=1)
    assert (made.images[0].info["seed"], made.images[0].info["generator"]) == ("6", "torch-cpu")


def test_a_list_of_generators_is_one_a_picture(pipeline):
    made = pipeline("a", num_images_per_prompt=2, generator=[torch.Generator().manual_seed(seed) for seed in (6, 2)])
    noise = np.concatenate([TorchNoise(seed).standard_normal((1, 4, 4, 4)) for seed in (6, 2)])
    np.testing.assert_array_equal(images(made), images(pipeline("a", num_images_per_prompt=2, latents=noise)))


def test_one_generator_for_several_pictures_is_one_stream(pipeline):
    made = pipeline("a", num_images_per_prompt=3, generator=torch.Generator().manual_seed(6))
    noise = torch.randn((3, 4, 4, 4), generator=torch.Generator().manual_seed(6))
    np.testing.assert_allclose(images(made), images(pipeline("a", num_images_per_prompt=3, latents=noise)), atol=1)


def test_generators_that_do_not_stand_for_a_seed(pipeline):
    used = torch.Generator().manual_seed(6)
    torch.randn(4, generator=used)
    with pytest.raises(UnsupportedError, match="was drawn from before"):
        pipeline("a", generator=used)
    with pytest.raises(UnsupportedError, match="several kinds"):
        pipeline("a", num_images_per_prompt=2, generator=[torch.Generator(), 3])
