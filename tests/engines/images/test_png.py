import numpy as np
import pytest
from PIL import Image

from engines.disk import DiskFull
from engines.errors import UnsupportedError
from engines.images.png import picture, save


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


def test_only_png(tmp_path):
    with pytest.raises(UnsupportedError, match=r"\.png"):
        save([], tmp_path / "a.jpg")


def test_what_is_done_is_kept_and_nothing_half_written_stays(tmp_path, monkeypatch):
    made = picture(np.zeros((2, 2, 3), np.float32), {})
    write, written = Image.Image.save, []

    def full(self, *args, **kwargs):
        written.append(args)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        write(self, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", full)
    (tmp_path / "a-2.png").write_text("of yesterday")
    with pytest.raises(DiskFull, match=r"writing .*a-2.png: the disk at .* is full"):
        save([made] * 2, tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.png", "a-2.png"]
    assert (tmp_path / "a-2.png").read_text() == "of yesterday"
    with Image.open(tmp_path / "a-1.png") as read:
        assert read.size == (2, 2)
