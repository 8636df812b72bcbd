"""torch's CPU draws without torch; tests/exporter/test_torch_noise.py compares with torch itself."""

import numpy as np
import pytest

from engines.images.torch_noise import TorchNoise
from engines.pipeline import Pipeline

#: `torch.Generator().manual_seed(7)`, torch 2.13: of draws of (1, 4, 8, 8), (3,), (17,) and (2,), one after the other.
RECORDED = (
    ((1, 4, 8, 8), slice(0, 4), [-0.8201345, 0.3956312, 0.8989085, -1.3884039]),
    ((3,), slice(0, 3), [1.2970374, 0.7788384, -0.4827891]),
    ((17,), slice(14, 17), [-0.1738545, -0.1138107, 1.7866477]),
    ((2,), slice(0, 2), [1.0432005, 0.4805301]),
)


def test_the_draws_of_torch_2_13():
    noise = TorchNoise(7)
    for shape, place, wanted in RECORDED:
        drawn = noise.standard_normal(shape).reshape(-1)
        assert drawn.dtype == np.float32
        np.testing.assert_allclose(drawn[place], wanted, atol=1e-6)


def test_a_seed_of_more_than_32_bits_counts_its_lower_ones():
    np.testing.assert_array_equal(TorchNoise(7).standard_normal((20,)), TorchNoise(7 + 2**40).standard_normal((20,)))


def test_it_is_chosen_and_said(pipeline):
    made = pipeline.generate(["a", "red"], seed=6, generator="torch-cpu")
    noise = np.stack([TorchNoise(seed).standard_normal((4, 4, 4)) for seed in (6, 7)])
    for one, other in zip(made, pipeline.generate(["a", "red"], noise=noise), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert (made[1].info["seed"], made[1].info["generator"]) == ("7", "torch-cpu")
    numpy = pipeline.generate("a", seed=6)[0]
    assert (np.asarray(numpy) != np.asarray(made[0])).any()
    assert numpy.info["generator"] == "numpy"


def test_a_bundle_may_have_it_as_its_default(bundle):
    from engines.bundle import draft, write
    from tests.engines import small

    defaults = bundle.manifest.defaults.model_copy(update={"generator": "torch-cpu"})
    other = write(bundle.folder, draft(bundle.manifest, defaults=defaults))
    pipeline = Pipeline(other, small.networks(other))
    (made,) = pipeline.generate("a", seed=6)
    np.testing.assert_array_equal(np.asarray(made), np.asarray(pipeline.generate("a", seed=6, generator="torch-cpu")[0]))
    assert made.info["generator"] == "torch-cpu"


@pytest.mark.parametrize("generator", ["numpy", "torch-cpu", "torch-cuda"])
def test_a_picture_is_that_of_its_seed_whatever_the_batch(pipeline, generator):
    together = pipeline.generate(["a", "red", "the sea"], seed=[9, 2, 5], generator=generator)
    (alone,) = pipeline.generate("red", seed=2, generator=generator)
    np.testing.assert_array_equal(np.asarray(together[1]), np.asarray(alone))
