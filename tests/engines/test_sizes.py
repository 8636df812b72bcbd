"""Which pictures a bundle makes: what the denoiser's and the decoder's ranges have in common, in pixels."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.errors import BundleError, UnsupportedError
from engines.manifest import Tile
from engines.signature import Port, Range, Signature
from engines.sizes import Sizes, axes
from tests.engines import small

ONE = Range(min=1, typical=1, max=2)


def part(role, ports, dims, tile=None):
    inputs, outputs = ([Port(name=name, shape=shape) for name, shape in side.items()] for side in ports)
    made = small.part(role, tuple(inputs), tuple(outputs), dims)
    return made.model_copy(update={"tile": tile})


def bundle(denoiser, decoder, *, sides=("height", "width"), factors=(8, 8), tile=None):
    """A bundle of 4 channels; `denoiser` and `decoder` are the ranges of (height, width) in cells."""
    latent = ("batch", 4, *sides)
    image = ("batch", *(f"{factor}*{side}" for factor, side in zip(factors, ("height", "width"), strict=True)), 3)
    first = {each: length for each, length in zip(("height", "width"), denoiser, strict=True) if each in "".join(map(str, sides))}
    second = dict(zip(("height", "width"), decoder, strict=True))
    parts = {
        "denoiser": part("denoiser", ({"latent": latent}, {"model_output": latent}), first),
        "decoder": part("decoder", ({"latent": ("batch", 4, "height", "width")}, {"image": image}), second, tile),
    }
    return SimpleNamespace(folder=Path("some/bundle"), manifest=SimpleNamespace(with_role=lambda role: {role: parts[role]}))


def span(low, high, step=1):
    return Range(min=low, typical=low, max=high, multiple=step)


def test_the_narrower_of_both_counts_and_steps_are_those_that_both_take():
    made = Sizes(bundle((span(2, 8, 2), span(4, 12, 4)), (span(3, 6, 3), span(1, 20, 1))))
    assert made.factors == [8, 8]
    assert made.ranges == [(24, 48, 48), (32, 96, 32)]  # 6 cells divide by 2 and by 3


def test_a_decoder_in_tiles_takes_every_larger_latent():
    ranges = (span(2, 64), span(2, 64)), (span(2, 8), span(2, 8))
    assert Sizes(bundle(*ranges)).ranges == [(16, 64, 8)] * 2
    assert Sizes(bundle(*ranges, tile=Tile(size=8, overlap=2))).ranges == [(16, 512, 8)] * 2


def test_pixels_a_cell_may_differ_down_and_across():
    made = Sizes(bundle((span(2, 8), span(2, 8)), (span(2, 8), span(2, 8)), factors=(16, 4)))
    assert made.factors == [16, 4]
    assert made.latent(3, 64, 16) == (3, 4, 4, 4)


def test_named_sides_are_told_in_their_own_unit_and_fixed_ones_are_not():
    ranges = (span(2, 8), span(2, 8)), (span(2, 8), span(2, 8))
    assert Sizes(bundle(*ranges)).named(48, 32) == {"height": 6, "width": 4}
    halved = Sizes(bundle(*ranges, sides=("2*height", "width")))  # the denoiser knows half the latent's height
    assert halved.ranges[0] == (32, 64, 16)
    assert halved.named(48, 32) == {"height": 3, "width": 4}
    fixed = Sizes(bundle(*ranges, sides=(4, "width")))
    assert fixed.ranges[0][:2] == (32, 32)
    assert fixed.named(32, 40) == {"width": 5}


def test_ranges_without_a_common_size_are_a_fault_of_the_bundle():
    with pytest.raises(BundleError, match=r"^some/bundle: no picture size fits both denoiser and decoder\. Build the bundle"):
        Sizes(bundle((span(2, 4), span(2, 4)), (span(2, 4), span(5, 8))))
    with pytest.raises(BundleError, match="no picture size"):
        Sizes(bundle((span(6, 8), span(2, 4)), (span(2, 4), span(2, 4))))


@pytest.fixture
def sizes():
    return Sizes(bundle((span(2, 8, 2), span(4, 4)), (span(1, 8), span(1, 8))))


def test_the_ends_of_a_range_fit(sizes):
    sizes.fit(16, 32)
    sizes.fit(64, 32)


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (8, 32, "height 8: this bundle makes pictures of height 16 to 64 in steps of 16 pixels."),
        (80, 32, "height 80: this bundle makes pictures of height 16 to 64 in steps of 16 pixels."),
        (24, 32, "height 24: this bundle makes pictures of height 16 to 64 in steps of 16 pixels."),
        (16, 40, "width 40: this bundle makes pictures of width 32 pixels."),
    ],
)
def test_what_does_not_fit_says_what_does(sizes, height, width, message):
    with pytest.raises(UnsupportedError) as caught:
        sizes.fit(height, width)
    assert str(caught.value) == message


def test_an_image_that_does_not_fit_is_called_by_width_then_height(sizes):
    sizes.fit_image(16, 32)
    with pytest.raises(UnsupportedError) as caught:
        sizes.fit_image(24, 32)
    assert str(caught.value) == (
        "an image of 32x24 pixels (width x height) does not fit. height 24: this bundle makes pictures of height 16 to 64 in "
        "steps of 16 pixels. Crop or resize it, or give height and width to have it resized."
    )


def test_an_image_that_is_enlarged_is_called_by_its_own_size(sizes):
    feed = SimpleNamespace(size=lambda _: ((24, 32), (6, 8)))
    with pytest.raises(UnsupportedError, match=r"^an image of 8x6 pixels .*, of which 32x24 are made, does not fit\. height 24"):
        sizes.chosen(feed, small.draft().defaults, None, None)


def test_axes_are_a_port_s_lengths_or_none():
    entry = small.draft().parts["unet"]
    assert axes(entry, "latent") == small.LATENT
    assert axes(entry, "absent") == ()
    assert isinstance(entry.signature, Signature)
