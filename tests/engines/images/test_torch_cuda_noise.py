"""torch's draws on NVIDIA GPUs without one: what others printed from theirs, and Philox's own test vectors."""

import numpy as np
import pytest

from engines.images.torch_cuda_noise import TorchCudaNoise, philox
from engines.pipeline import Pipeline
from tests.engines import small

#: `torch.manual_seed(0); torch.randn(8, 8, device="cuda")`, as printed in public notebooks (torch 2.2, Triton's LoRA tutorial).
PRINTED = """
-0.9247 -0.4253 -2.6438  0.1452 -0.1209 -0.5797 -0.6229 -0.3284 -1.0745 -0.3631 -1.6711  2.2655  0.3117 -0.1842  1.2866  1.1820
-0.1271  1.2169  1.4353  1.0605 -0.4941 -1.4244 -0.7244 -1.2973  0.0697 -0.0074  1.8969  0.6878 -0.0779 -0.8373  1.3506 -0.2879
-0.5965 -0.3283 -0.9086 -0.8059 -0.7407 -0.0504  0.5435  1.5150  0.0141  0.4532  1.6349  0.7124 -0.1806  1.0252 -1.4622 -0.7554
-0.1836  0.3824  0.3918 -0.0830  0.8971 -1.1123  0.1116  0.4863 -0.5499 -0.3231 -0.5469  0.9049  0.2837  0.1210  0.4730 -1.0823
"""
#: The same seed's first numbers to eight digits, as another implementation's documentation has them (stable-diffusion-webui).
PRECISE = [-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709, -1.07454231]
#: Threads of a GPU → the last three of `torch.rand(98432) + torch.rand(98432)` of seed 0 that it printed (Triton's first
#: tutorial, run by several people). Numbers of threads that are no guess: of all multiples of 256, only these give them.
SUMS = {None: [0.6724, 1.2141, 0.9733], 272 * 256: [1.1495, 0.9265, 1.1323], 168 * 256: [1.3374, 1.4960, 0.9115]}


@pytest.mark.parametrize(
    ("seed", "place", "stream", "words"),
    [
        (0, 0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (2**64 - 1, 2**64 - 1, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (0x299F31D0A4093822, 0x85A308D3243F6A88, 0x0370734413198A2E, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_known_answers_of_philox_4x32_10(seed, place, stream, words):
    """Of Random123, which its authors publish."""
    made = philox(seed, np.array(place, np.uint64), np.array(stream, np.uint64))
    assert [f"{word:08x}" for word in made] == words.split()


def test_what_a_gpu_printed():
    drawn = TorchCudaNoise(0).standard_normal((8, 8))
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.reshape(-1), np.array(PRINTED.split(), float), atol=5.1e-5)
    np.testing.assert_allclose(drawn.reshape(-1)[: len(PRECISE)], PRECISE, atol=1e-6)


@pytest.mark.parametrize("threads", SUMS)
def test_the_second_draw_and_the_layout_of_draws_that_a_gpu_does_not_hold_at_once(threads):
    noise, count = TorchCudaNoise(0, threads), 98432

    def uniform():
        words = noise.words(count).reshape(-1)[:count].astype(np.float32)
        return words * np.float32(2**-32) + np.float32(2**-33)

    total = uniform() + uniform()
    np.testing.assert_allclose(total[:3], [1.3713, 1.3076, 0.4940], atol=5.1e-5)
    np.testing.assert_allclose(total[-3:], SUMS[threads], atol=5.1e-5)


@pytest.mark.parametrize("count", [1, 255, 512, 513, 2048, 2049, 5000])
def test_every_number_is_the_one_that_its_thread_makes(count):
    """The kernel as it is written, a thread at a time, on a GPU of 512 threads."""
    threads, noise = 256 * min(-(-count // 256), 2), TorchCudaNoise(2**40 + 3, 512)
    for offset in (0, 4 * -(-count // (4 * threads))):
        wanted = np.full(count, np.nan, np.float32)
        for thread in range(threads):
            for turn, start in enumerate(range(thread, count, threads * 4)):
                made = _four(2**40 + 3, offset // 4 + turn, thread)
                for part, place in enumerate(range(start, min(count, start + 4 * threads), threads)):
                    wanted[place] = made[part]
        np.testing.assert_allclose(noise.standard_normal((count,)), wanted, atol=3e-6)


def _four(seed, place, stream):
    words = philox(seed, np.array(place, np.uint64), np.array(stream, np.uint64)).astype(float)
    first, second = (np.sqrt(-2 * np.log(word * 2**-32 + 2**-33)) for word in words[::2])
    one, other = (2 * np.pi * (word + 0.5) * 2**-32 for word in words[1::2])
    return first * np.sin(one), first * np.cos(one), second * np.sin(other), second * np.cos(other)


def test_the_numbers_are_standard_normal():
    drawn = TorchCudaNoise(5, 512).standard_normal((4, 64, 64))
    assert abs(drawn.mean()) < 0.03
    assert abs(drawn.std() - 1) < 0.02


def test_all_64_bits_of_a_seed_count():
    assert (TorchCudaNoise(7).standard_normal((20,)) != TorchCudaNoise(7 + 2**40).standard_normal((20,))).all()


def test_it_is_chosen_and_said(pipeline):
    made = pipeline.generate(["a", "red"], seed=6, generator="torch-cuda")
    noise = np.stack([TorchCudaNoise(seed).standard_normal((4, 4, 4)) for seed in (6, 7)])
    for one, other in zip(made, pipeline.generate(["a", "red"], noise=noise), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert (made[1].info["seed"], made[1].info["generator"]) == ("7", "torch-cuda")


def test_a_bundle_may_have_it_as_its_default(bundle):
    from engines.bundle import draft, write

    defaults = bundle.manifest.defaults.model_copy(update={"generator": "torch-cuda"})
    other = write(bundle.folder, draft(bundle.manifest, defaults=defaults))
    (made,) = Pipeline(other, small.networks(other)).generate("a", seed=6)
    assert made.info["generator"] == "torch-cuda"


def test_a_generator_of_cuda_is_read_by_its_seed(pipeline):
    """A class of torch's shape: there is no GPU here."""

    class OfCuda:
        def __init__(self, device):
            self.device, self.seed = device, 0

        def initial_seed(self):
            return self.seed

        def manual_seed(self, seed):
            self.seed = seed
            return self

        def get_state(self):
            return np.array([self.seed, 0])

    made = pipeline("a", num_images_per_prompt=2, generator=OfCuda("cuda").manual_seed(9)).images
    noise = TorchCudaNoise(9).standard_normal((2, 4, 4, 4))
    wanted = pipeline("a", num_images_per_prompt=2, latents=noise).images
    np.testing.assert_array_equal(np.stack(made), np.stack(wanted))
