"""Parameters and multiply-adds, against figures counted independently with FlopCounterMode on the bare networks."""

from pathlib import Path

import pytest

from exporter.families.sd import Sd
from exporter.families.sdxl import Sdxl
from exporter.models.resolve import resolve
from exporter.reference.cost import count
from tests.exporter import equality

#: Giga multiply-adds at batch 1 without guidance: UNet, VAE decoder, at a size in pixels.
KNOWN = [
    (Sd, "bk-sdm-tiny", 512, 242.8, 1257.3),
    (Sd, "sdxs-512-dreamshaper", 512, 184.7, 70.7),
    (Sdxl, "koala-700m", 1024, 1350.8, 5235.2),
]


@pytest.mark.parametrize(("cls", "name", "size", "unet", "decoder"), KNOWN)
def test_count(cls, name, size, unet, decoder):
    shapes = {"height": (size,) * 3, "width": (size,) * 3}
    recipe = equality.recipe(name, "none", model={"weights": "random"}, shapes=shapes)
    found = count(cls(resolve(recipe.model, Path()), recipe))
    assert found["unet"].multiply_adds / 1e9 == pytest.approx(unet, rel=1e-3)
    assert found["vae_decoder"].multiply_adds / 1e9 == pytest.approx(decoder, rel=1e-3)
    assert found["vae_decoder"].parameters in {49_490_199, 1_222_531}


def test_guidance_doubles_the_unet(tiny_sdxl):
    one, two = (count(equality.family(Sdxl, tiny_sdxl, mode))["unet"].multiply_adds for mode in ("none", "classifier_free"))
    assert two == 2 * one
