from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.disk import DiskFull
from engines.errors import UnsupportedError
from engines.images.png import encode, picture, read_facts, save


def test_zero_to_one_becomes_zero_to_255_rounded():
    made = picture(np.array([[[0, 0.5, 1.0], [-1, 2, 0.499 / 255]]], np.float32), {})
    assert np.asarray(made).tolist() == [[[0, 128, 255], [0, 255, 0]]]


def test_the_file_says_how_it_was_made(tmp_path):
    made = picture(np.zeros((2, 3, 3), np.float32), {"prompt": "ein Baum — 木", "seed": "3"})
    assert save([made], tmp_path / "a.png") == [tmp_path / "a.png"]
    with Image.open(tmp_path / "a.png") as read:
        assert read.text == {"prompt": "ein Baum — 木", "seed": "3"}
        assert read.size == (3, 2)


def test_several_pictures_are_numbered(tmp_path):
    made = picture(np.zeros((2, 2, 3), np.float32), {})
    save([made] * 2, tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.png", "a-2.png"]


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".webp", ".png"])
def test_the_ending_is_the_format_and_the_facts_come_back(tmp_path, ending):
    ramp = np.linspace(0, 1, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
    facts = {"prompt": "ein Baum — 木 " * 100, "seed": "3", "exif": "of a user", "quality": "1"}
    made = picture(ramp, facts)
    (path,) = save([made], tmp_path / f"a{ending}")
    with Image.open(path) as read:
        assert read.format == {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".png": "PNG"}[ending.lower()]
        assert read_facts(read) == facts
        assert np.abs(np.asarray(read, np.int16) - np.asarray(made, np.int16)).max() <= 8
    (path,) = save([made], tmp_path / f"b{ending}", metadata=False)
    with Image.open(path) as read:
        assert read_facts(read) == {}
        assert not read.getexif()
    assert b"Baum" not in path.read_bytes()


def test_facts_that_a_jpeg_cannot_hold(tmp_path):
    made = picture(np.zeros((2, 2, 3), np.float32), {"prompt": "木" * 20_000})
    with pytest.raises(UnsupportedError, match=r"too long for the metadata of a JPEG\. Write a PNG, or no metadata"):
        save([made], tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())
    save([made], tmp_path / "a.png")


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match=r"PNG, JPEG or WebP\. End the name in \.png, \.jpg, \.jpeg, \.webp"):
        save([], tmp_path / "a.gif")


@pytest.mark.parametrize("text", ["", "by a camera", "[1]", '{"a": '])
def test_what_others_wrote_says_nothing(tmp_path, text):
    exif = Image.Exif()
    exif[0x010E] = text
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as read:
        assert read_facts(read) == {}


def test_what_is_done_is_kept_and_nothing_half_written_stays(tmp_path, monkeypatch):
    made = picture(np.zeros((2, 2, 3), np.float32), {})
    write, written = Path.write_bytes, []

    def full(self, data):
        written.append(self)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    (tmp_path / "a-2.png").write_text("of yesterday")
    with pytest.raises(DiskFull, match=r"writing .*a-2.png: the disk at .* is full"):
        save([made] * 2, tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.png", "a-2.png"]
    assert (tmp_path / "a-2.png").read_text() == "of yesterday"
    with Image.open(tmp_path / "a-1.png") as read:
        assert read.size == (2, 2)


@pytest.mark.parametrize(("form", "ending"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_the_bytes_of_a_file_are_those_that_are_written(tmp_path, form, ending):
    made = picture(np.random.default_rng(0).random((16, 16, 3), np.float32), {"prompt": "sea"})
    save([made], tmp_path / f"a.{ending}")
    assert encode(made, form) == (tmp_path / f"a.{ending}").read_bytes()
    small, large = (len(encode(made, form, quality=quality)) for quality in (10, 100))
    assert small == large if form == "PNG" else small < large
    assert b"sea" not in encode(made, form, metadata=False)
