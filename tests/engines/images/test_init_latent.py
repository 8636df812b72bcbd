import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.images import init_latent
from engines.images.init_latent import InitLatent


def test_latents_are_one_a_picture():
    array = np.arange(2 * 4 * 3 * 5, dtype=np.float64).reshape(2, 4, 3, 5)
    found = InitLatent.of(init_latent.each(array), 0.8, 4, (8, 8))
    assert (found.latents.shape, found.latents.dtype, found.size) == ((2, 4, 3, 5), np.float32, (24, 40))
    assert found.facts(0)["image_sha256"] != found.facts(1)["image_sha256"]
    assert found.facts(1)["denoising_start"] == "0.8"
    assert found.keep(array) is array
    assert found.cells(3, 5) is None
    assert len(init_latent.each(array[0])) == 1
    assert init_latent.each("picture") == "picture"


@pytest.mark.parametrize(
    ("given", "start", "told"),
    [
        ([np.zeros((4, 2, 2))], 1.0, "denoising_start 1 is out of range"),
        ([np.zeros((4, 2, 2))], float("nan"), "out of range"),
        (None, 0.5, "there are none"),
        (["a.png"], 0.5, "a str was given"),
        ([np.zeros((3, 2, 2))], 0.5, r"the latents are \[3, 2, 2\], and this bundle's are \[4, "),
        ([np.zeros((4, 2, 2)), np.zeros((4, 2, 4))], 0.5, "all of one size"),
        ([np.full((4, 2, 2), np.inf)], 0.5, "NaN or infinity"),
    ],
)
def test_what_are_no_latents_to_go_on_from_is_refused(given, start, told):
    with pytest.raises(UnsupportedError, match=told):
        InitLatent.of(given, start, 4, (8, 8))


def test_an_array_of_other_axes_is_no_latents():
    with pytest.raises(UnsupportedError, match="latents are"):
        init_latent.each(np.zeros((2, 2)))
