"""Resizing with antialiasing as products with matrices: what torch makes, at sizes that are known."""

import pytest
import torch
from torch.nn.functional import interpolate

from engines.errors import UnsupportedError
from exporter.families.tracing.following.smoothed import antialiased, resized
from exporter.families.tracing.following.standins import Answered


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(16, 12), (3, 3), (2, 5)])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_it_is_what_torch_makes(mode, size, align_corners):
    given = torch.rand(2, 4, 6, 3, generator=torch.Generator().manual_seed(0))
    wanted = interpolate(given, size, mode=mode, antialias=True, align_corners=align_corners)
    torch.testing.assert_close(resized(given, size, mode, align_corners=align_corners), wanted, rtol=0, atol=1e-5)
    with Answered(torch.zeros):
        own = interpolate(given, size=size, mode=mode, antialias=True, align_corners=align_corners)
    torch.testing.assert_close(own, wanted, rtol=0, atol=1e-5)


def test_what_resizes_without_it_stays_torch_s():
    assert antialiased("interpolate", {"antialias": True})
    assert not antialiased("interpolate", {"mode": "bilinear"})
    assert not antialiased("conv2d", {"antialias": True})


class Doubled(torch.nn.Module):
    """A network that makes its input twice as high."""

    def forward(self, given):
        return resized(given, (given.shape[-2] * 2, 8))


def test_a_size_that_is_open_is_refused():
    shapes = {"given": {2: torch.export.Dim("height", min=4, max=64)}}
    with pytest.raises(UnsupportedError, match="build a bundle for each"):
        torch.export.export(Doubled(), (torch.rand(1, 2, 6, 6),), dynamic_shapes=shapes, strict=False)
