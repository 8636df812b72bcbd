import base64
import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

from engines.serve import received
from engines.serve.refusals import Refusal
from tests.engines.serve.live import file_of, text_of


def test_a_picture_is_read_from_base64_and_from_a_data_url():
    image = Image.new("RGB", (4, 3), "red")
    for text in (text_of(image), f"data:image/png;base64,{text_of(image)}", "\n".join(text_of(image))):
        assert received.from_base64(text, 100, "image").size == (4, 3)


@pytest.mark.parametrize("text", ["http://127.0.0.1/a.png", "file:///etc/passwd", "https://x"])
def test_nothing_is_fetched(text):
    with pytest.raises(Refusal, match="this server fetches nothing"):
        received.from_base64(text, 100, "image")


def test_a_bomb_is_refused_before_it_is_unpacked():
    data = file_of(Image.new("1", (20_000, 20_000)))
    assert len(data) < 100_000
    with pytest.raises(Refusal) as caught:
        received.picture(data, 10_000, "image")
    assert caught.value.status == 413


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_never_read(form):
    with pytest.raises(Refusal, match="Send a PNG, JPEG or WebP"):
        received.picture(file_of(Image.new("RGB", (16, 16)), form), 1000, "image")


def test_damage_anywhere_is_a_sentence():
    data = file_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)))
    rng, refused = np.random.default_rng(1), list[int]()
    for _ in range(200):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            broken[place] = int(rng.integers(0, 256))
        try:
            received.picture(bytes(broken[: rng.integers(1, len(data))]), 10_000, "image")
        except Refusal as refusal:
            refused.append(refusal.status)
    assert len(refused) > 150
    assert set(refused) <= {400, 413}


def test_a_picture_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    Image.new("RGB", (8, 4)).save(data, "JPEG", exif=exif)
    assert received.picture(data.getvalue(), 100, "image").size == (4, 8)
    assert received.from_base64(base64.b64encode(data.getvalue()).decode(), 100, "image").size == (4, 8)
