"""Channels are the first axis of a latent, and a pipeline whose are the last is told."""

import pytest

from engines.errors import UnsupportedError
from exporter.families.tracing.following.latent_layouts import channels_first


@pytest.mark.parametrize(
    ("latent", "size"),
    [
        ((4, 16, 16), (32, 32)),
        ((16, 16, 16), (32, 32)),
        ((4, 8, 16), (64, 128)),
        ((16, 24, 24), (192, 192)),
    ],
)
def test_channels_before_the_sides_stay(latent, size):
    assert channels_first(latent, size, "Some") == latent


@pytest.mark.parametrize(("latent", "size"), [((128, 128, 4), (1024, 1024)), ((96, 160, 16), (768, 1280))])
def test_channels_behind_the_sides_are_told(latent, size):
    with pytest.raises(UnsupportedError, match=r"Some draws noise of .* whose last axis are channels"):
        channels_first(latent, size, "Some")
