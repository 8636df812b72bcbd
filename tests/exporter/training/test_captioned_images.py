"""Where a training's pictures may lie: a folder, webdataset's tar files, a data set."""

import io
import json
import tarfile

import pytest
from PIL import Image

from engines.errors import RecipeError
from exporter.training import captioned_images


def png(shade=0):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, "png")
    return file.getvalue()


def shard(path, entries):
    with tarfile.open(path, "w") as archive:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def seen(found):
    return [(picture.name, picture.caption, picture.read()) for picture in found]


@pytest.fixture
def shards(tmp_path):
    shard(tmp_path / "a-000.tar", {"x/1.png": png(1), "x/1.txt": b"one\n", "2.v1.jpg": png(2), "2.json": b'{"caption": "two"}'})
    shard(tmp_path / "a-001.tar", {"1.png": png(3), "1.json": b'{"text": "three"}', "1.cls": b"7"})
    return tmp_path


def test_tar_files_are_read_where_they_lie(shards):
    expected = [("a-000.tar/2.v1.jpg", "two", png(2)), ("a-000.tar/x/1.png", "one", png(1)), ("a-001.tar/1.png", "three", png(3))]
    assert seen(captioned_images.pictures(shards, "x")) == expected
    assert seen(captioned_images.pictures(shards / "a-*.tar", "x")) == expected
    assert seen(captioned_images.pictures(shards / "a-001.tar", "x")) == expected[2:]


def test_a_changed_shard_has_another_digest(shards):
    before = captioned_images.digest(captioned_images.pictures(shards, "x"))
    assert before == captioned_images.digest(captioned_images.pictures(shards / "*.tar", "x"))
    shard(shards / "a-001.tar", {"1.png": png(4), "1.json": b'{"text": "three"}'})
    assert before != captioned_images.digest(captioned_images.pictures(shards, "x"))


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"1.png": png()}, "1 pictures without captions in .*: a.tar/1.png"),
        ({"1.txt": b"one"}, "1 captions without pictures in .*: a.tar/1.txt"),
        ({"1.png": png(), "1.json": b'{"label": 3}'}, 'a.tar/1.json has neither "caption" nor "text"'),
        ({"1.png": png(), "1.json": b"3"}, 'a.tar/1.json has neither "caption" nor "text"'),
        ({"1.png": png(), "1.json": b"{"}, "a.tar/1.json is not JSON"),
    ],
)
def test_a_shard_that_is_not_complete_is_refused(tmp_path, entries, told):
    shard(tmp_path / "a.tar", entries)
    with pytest.raises(RecipeError, match=told):
        captioned_images.pictures(tmp_path, "distill.data")


def test_what_is_no_plain_tar_file_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(RecipeError, match=r"distill.data: .*a.tar is not a whole tar file without compression"):
        captioned_images.pictures(tmp_path / "a.tar", "distill.data")
    with pytest.raises(RecipeError, match=r"b.tar is not a folder or .tar file"):
        captioned_images.pictures(tmp_path / "b.tar", "distill.data")


def test_a_folder_may_have_json_beside_its_pictures(tmp_path):
    (tmp_path / "a.b.png").write_bytes(png())
    (tmp_path / "a.b.json").write_text(json.dumps({"caption": "a star", "width": 8}))
    assert [(name, caption) for name, caption, _ in seen(captioned_images.pictures(tmp_path, "x"))] == [("a.b.png", "a star")]
