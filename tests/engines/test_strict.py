"""What crosses a file boundary is read with suspicion: closed models, regular files, JSON as its standard has it."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engines import strict
from engines.errors import BundleError
from engines.strict import Frozen, describe, read_bytes, read_json, regular


@given(st.binary(max_size=200))
def test_any_bytes_as_json(tmp_path_factory, data):
    where = tmp_path_factory.getbasetemp() / "x.json"
    try:
        value = read_json(data, where)
    except BundleError:
        return
    assert json.loads(data) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"b": {"a": 1, "a": 1}}',
        "NaN",
        "[Infinity]",
        "[-Infinity]",
        "1e999",
        '"\\ud800"',
        '{"\\udc00": 1}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,
        "\ufeff{}",
        "",
        "{} {}",
        "{'a': 1}",
    ],
    ids=lambda text: text[:12],
)
def test_what_json_does_not_hold(tmp_path, text):
    with pytest.raises(BundleError, match="damaged"):
        read_json(text.encode(), tmp_path)


def test_bytes_that_are_not_utf8(tmp_path):
    with pytest.raises(BundleError, match="damaged"):
        read_json(b'{"a": "\xff"}', tmp_path)


class Point(Frozen):
    x: int
    y: float = 0.0


class Wide(Frozen):
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int


def test_a_model_is_frozen_and_closed():
    point = Point.parse(b'{"x": 1, "y": 0.5}', Path("p.json"))
    assert (point.x, point.y) == (1, 0.5)
    with pytest.raises(ValidationError, match="frozen"):
        point.x = 2
    assert hash(point) == hash(Point(x=1, y=0.5))
    with pytest.raises(ValidationError, match="finite"):
        Point(x=1, y=float("nan"))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"x": "1"}', r"  x: Input should be a valid integer"),
        (b'{"x": 1.0}', r"  x: Input should be a valid integer"),
        (b'{"x": 1, "z": 2}', r"  z: Extra inputs are not permitted"),
        (b"{}", r"  x: Field required"),
        (b"3", r"  all: Input should be an object"),
        (b"{", r"  all: Invalid JSON"),
    ],
)
def test_what_is_no_such_model_is_told_with_its_file(data, told):
    with pytest.raises(BundleError, match=rf"^deep/p\.json is not valid:\n{told}") as error:
        Point.parse(data, Path("deep/p.json"))
    assert str(error.value).endswith("\nBuild the bundle again, or fetch it again.")


def test_five_problems_are_told_and_the_rest_counted():
    with pytest.raises(ValidationError) as error:
        Wide()
    lines = describe(error.value).splitlines()
    assert lines == [*(f"  {name}: Field required" for name in "abcde"), "  and 2 more"]
    with pytest.raises(ValidationError) as error:
        Wide(**dict.fromkeys("fg", 0))
    assert describe(error.value).count("\n") == 4


def test_a_file_is_read_up_to_its_limit(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert regular(file) == 5
    assert read_bytes(file, 5) == b"12345"
    with pytest.raises(BundleError, match=r"a must be a file of at most 4 bytes. It will not be read"):
        read_bytes(file, 4)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("folder", "must be a file, not a link, a folder or a device"),
        ("link", "must be a file, not a link, a folder or a device"),
        ("pipe", "must be a file, not a link, a folder or a device"),
        ("none", "is missing. Is its folder a bundle"),
        ("below a file", "is missing. Is its folder a bundle"),
    ],
)
def test_what_is_no_regular_file_is_refused(tmp_path, kind, told):
    path, other = tmp_path / "path", tmp_path / "other"
    other.write_text("x")
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "below a file":
        path = other / "path"
    with pytest.raises(BundleError, match=told):
        regular(path)


def test_a_link_of_the_hub_s_cache_is_the_blob_behind_it(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0" / "unet"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "b").write_bytes(b"1234567")
    (snapshot / "a").symlink_to(blobs / "b")
    assert regular(snapshot / "a") == 7
    (snapshot / "lost").symlink_to(blobs / "none")
    (tmp_path / "private").write_text("secret")
    (snapshot / "out").symlink_to(tmp_path / "private")
    for name in ("lost", "out"):
        with pytest.raises(BundleError, match="not a link"):
            regular(snapshot / name)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_text("x")
    monkeypatch.setattr(strict.os, "access", lambda *_: False)  # whoever runs the tests may be root
    with pytest.raises(BundleError, match=r"a may not be read by this user. Have its owner allow it"):
        regular(file)


@pytest.mark.parametrize("text", ["null", "[1, 2.5, true]", '{"a": {"b": "é"}}', "1e308"])
def test_json_is_what_it_says(text):
    assert read_json(text.encode(), Path("x")) == json.loads(text)
