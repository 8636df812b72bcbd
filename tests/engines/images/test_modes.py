"""What a picture says in any mode is kept, or the mode is refused by name."""

import numpy as np
import pytest
from PIL import Image

from engines.errors import UnsupportedError
from engines.images import modes
from engines.images.init_image import InitImage, read

RAMP = np.tile(np.linspace(0, 1, 64), (8, 1))
EIGHT = (RAMP * 255).round()


def levels(image):
    return np.asarray(image, np.float32)


@pytest.mark.parametrize("convert", [modes.rgb, modes.grey])
@pytest.mark.parametrize("mode", ["grey8.png", "grey16.png", "grey16.tif", "float.tif", "big16.tif", "int.tif", "alpha.png"])
def test_a_ramp_stays_a_ramp(tmp_path, mode, convert):
    sixteen = (RAMP * 65535).round()
    array = {
        "grey8": EIGHT.astype(np.uint8),
        "grey16": sixteen.astype(np.uint16),
        "big16": sixteen.astype(">u2"),
        "float": RAMP.astype(np.float32),
        "int": sixteen.astype(np.int32),
        "alpha": np.stack([EIGHT] * 3 + [np.full_like(EIGHT, 255)], axis=-1).astype(np.uint8),
    }[mode.partition(".")[0]]
    Image.fromarray(array).save(tmp_path / mode)
    found = levels(convert(read(tmp_path / mode)))
    wanted = EIGHT if found.ndim == 2 else np.repeat(EIGHT[..., None], 3, axis=-1)
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBA", "LA", "RGBX"])
def test_every_usual_mode(mode):
    grey = Image.fromarray(EIGHT.astype(np.uint8), "L").convert("L" if mode == "P" else "RGB").convert(mode)
    rough = 255 if mode == "1" else 4
    assert np.abs(levels(modes.rgb(grey)) - EIGHT[..., None]).max() <= rough
    assert np.abs(levels(modes.grey(grey)) - EIGHT).max() <= rough
    assert (modes.rgb(grey).mode, modes.grey(grey).mode) == ("RGB", "L")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "La", "RGBa", "PA", "tRNS"])
def test_what_is_transparent_lies_on_white(mode):
    plain = Image.new("RGBA", (2, 1), (0, 0, 0, 0))  # black behind what cannot be seen
    plain.putpixel((1, 0), (10, 10, 10, 255))
    if mode == "tRNS":
        image = plain.convert("L")
        image.info["transparency"] = 0
    elif mode == "PA":
        image = plain.convert("RGBA").quantize(4)
    else:
        image = plain.convert("LA").convert(mode) if mode == "La" else plain.convert(mode)
    shown = levels(modes.rgb(image))
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert np.abs(shown[0, 1] - 10).max() <= 2


def test_half_transparent_is_half_white():
    assert np.abs(levels(modes.rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 128)))) - 127).max() <= 1


def test_a_mask_that_lies_in_alpha_is_refused():
    eraser = np.full((4, 4, 4), 255, np.uint8)
    eraser[:, 2:, 3] = 0
    with pytest.raises(UnsupportedError, match=r"the mask is transparent in places.*Save it in black and white"):
        InitImage.of(Image.new("RGB", (4, 4)), Image.fromarray(eraser, "RGBA"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.float32([[0, 255]]), "float numbers from 0 to 255, and only 0 .black. to 1 .white. is known"),
        (np.float32([[0, np.nan]]), "float numbers from nan to nan"),
        (np.float32([[-1, 1]]), "float numbers from -1 to 1"),
        (np.int32([[0, 70000]]), "32-bit whole numbers from 0 to 70000, and nothing says which is white"),
        (np.int32([[0, 255]]), "32-bit whole numbers from 0 to 255"),
        (np.int32([[-5, 500]]), "32-bit whole numbers from -5 to 500"),
    ],
)
def test_numbers_whose_white_nobody_knows(array, message):
    for convert in (modes.rgb, modes.grey):
        with pytest.raises(UnsupportedError, match=message):
            convert(Image.fromarray(array))


def test_lab_is_grey_by_way_of_rgb():
    image = Image.new("LAB", (2, 2), (200, 10, 20))
    assert modes.grey(image).tobytes() == modes.rgb(image).convert("L").tobytes()


def test_a_16_bit_mask_is_white_from_one_half_on():
    mask = Image.fromarray((RAMP * 65535).round().astype(np.uint16))
    anew = InitImage.of(Image.new("RGB", (64, 8)), mask).anew
    np.testing.assert_array_equal(anew, RAMP >= 0.5)
