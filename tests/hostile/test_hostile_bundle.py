"""Bundles made by an enemy, or by a bad disk: BundleError, never a traceback, never a byte from outside the folder."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines import bundle as module
from engines.bundle import FORMAT, MANIFEST, Bundle
from engines.errors import BundleError
from engines.pipeline import Pipeline
from engines.strict import read_json
from tests.engines import small

BEHIND_A_FIXTURE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def opened_whole(folder):
    """Open as the pipeline does, and check all that it would read."""
    found = Bundle.open(folder)
    found.verify()
    Pipeline(found, small.networks(found))
    return found.manifest


def forge(bundle, content):
    """Write a manifest whose own digest is right: damage that only an enemy does."""
    content = {**content, "digest": module._digest(content)}
    (bundle.folder / MANIFEST).write_text(json.dumps(content))


def content_of(bundle):
    return json.loads((bundle.folder / MANIFEST).read_text())


@pytest.mark.parametrize("flip", [0x01, 0x20, 0xFF])
def test_every_byte_flipped(bundle, flip, monkeypatch):
    data = bytearray((bundle.folder / MANIFEST).read_bytes())
    monkeypatch.setattr(module, "read_bytes", lambda *_: bytes(data))  # thousands of files would wear a disk out
    equal = 0
    for index in range(len(data)):
        data[index] ^= flip
        try:
            found = Bundle.open(bundle.folder).manifest
        except BundleError:
            pass
        else:
            assert found == bundle.manifest
            equal += 1
        data[index] ^= flip
    assert equal < len(data) / 2


def test_every_truncation(bundle, monkeypatch):
    data = (bundle.folder / MANIFEST).read_bytes()
    for length in range(0, len(data) - 2, 3):
        monkeypatch.setattr(module, "read_bytes", lambda *_, length=length: data[:length])
        with pytest.raises(BundleError):
            Bundle.open(bundle.folder)


@pytest.mark.parametrize("damage", ["truncate", "append", "change", "remove", "folder", "link", "link to itself", "pipe"])
@pytest.mark.parametrize("name", sorted(["samplers/2.json", "tokenizers/tokenizer.json", "onnx/20/unet.onnx"]))
def test_a_damaged_file(bundle, name, damage):
    path = bundle.folder / name
    data = path.read_bytes()
    if damage in {"truncate", "append", "change"}:
        path.write_bytes({"truncate": data[:-1], "append": data + b" ", "change": b"?" + data[1:]}[damage])
    else:
        path.rename(bundle.folder.parent / "elsewhere")
        if damage == "folder":
            path.mkdir()
        elif damage == "link":
            path.symlink_to(bundle.folder.parent / "elsewhere")
        elif damage == "link to itself":
            path.symlink_to(path)
        elif damage == "pipe":
            os.mkfifo(path)
    with pytest.raises(BundleError, match=name.rpartition("/")[2]):
        Bundle.open(bundle.folder).path(name)
    with pytest.raises(BundleError):
        opened_whole(bundle.folder)


@pytest.mark.parametrize("above", ["onnx", "onnx/20", "samplers"])
def test_a_folder_behind_a_link(bundle, above):
    (bundle.folder / above).rename(bundle.folder.parent / "elsewhere")
    (bundle.folder / above).symlink_to(bundle.folder.parent / "elsewhere")
    with pytest.raises(BundleError, match="is a link"):
        opened_whole(bundle.folder)


@pytest.mark.parametrize("what", ["link", "folder", "pipe", "nothing", "no folder", "a file", "huge"])
def test_a_manifest_that_is_no_file(bundle, what):
    path, folder = bundle.folder / MANIFEST, bundle.folder
    path.rename(folder.parent / "elsewhere")
    if what == "link":
        path.symlink_to(folder.parent / "elsewhere")
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "huge":
        with path.open("wb") as file:
            file.truncate(2**40)
    elif what == "no folder":
        folder = folder.parent / "absent"
    elif what == "a file":
        folder = folder.parent / "elsewhere"
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(folder)


BAD_PATHS = [
    "../outside",
    "/etc/passwd",
    "a/../../outside",
    "./a",
    "a//b",
    "a/",
    "",
    ".",
    "..",
    "a\\b",
    "a\n",
    "a\0b",
    "~/a",
    "C:/a",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_leaves_the_folder(bundle, path):
    (bundle.folder.parent / "outside").write_text("secret")
    with pytest.raises(BundleError):
        bundle.path(path)
    for place in ("files", "samplers", "engines"):
        content = content_of(bundle)
        content["files"][path] = content["files"]["samplers/2.json"]
        if place == "samplers":
            content["samplers"][0]["file"] = path
        elif place == "engines":
            content["parts"]["unet"]["engines"]["onnxruntime"]["files"] = [path]
        forge(bundle, content)
        with pytest.raises(BundleError):
            opened_whole(bundle.folder)


def test_a_bundle_of_the_first_format_opens(bundle):
    content = content_of(bundle)
    for entry in content["samplers"]:
        del entry["image"]
    forge(bundle, {**content, "format": 1})
    assert Bundle.open(bundle.folder).manifest.format == 1


def test_a_newer_format_has_its_own_message(bundle):
    forge(bundle, {"format": FORMAT + 1, "what": "nobody knows yet"})
    with pytest.raises(BundleError, match=f"has format {FORMAT + 1}; this program reads up to {FORMAT}. Install a newer"):
        Bundle.open(bundle.folder)


@pytest.mark.parametrize("found", [None, 0, -1, "1", 1.0, True, [1], {}])
def test_a_format_that_is_no_number(bundle, found):
    forge(bundle, {**content_of(bundle), "format": found})
    with pytest.raises(BundleError, match="no format number"):
        Bundle.open(bundle.folder)


def test_a_changed_manifest_is_noticed(bundle):
    content = content_of(bundle)
    content["recipe"] += "#"
    (bundle.folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BundleError, match="changed after it was written"):
        Bundle.open(bundle.folder)


def test_a_file_that_is_named_but_not_listed(bundle):
    content = content_of(bundle)
    del content["files"]["samplers/2.json"]
    forge(bundle, content)
    with pytest.raises(BundleError, match=r"not in files: .*samplers/2\.json"):
        Bundle.open(bundle.folder)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(below, (*path, key))


def at(content, path):
    for key in path:
        content = content[key]
    return content


def test_an_unknown_key_anywhere(bundle):
    plain = content_of(bundle)
    refused = 0
    for path in places(plain):
        content = json.loads(json.dumps(plain))
        if isinstance(at(content, path), dict):
            at(content, path)["Surplus?"] = 1
            forge(bundle, content)
            if path in {("source",), ("versions",)} or path[-1:] == (
                "options",
            ):  # these are open: text to text, and a backend's own
                continue
            with pytest.raises(BundleError, match=r"Surplus\?|digest"):
                Bundle.open(bundle.folder)
            refused += 1
    assert refused > 20


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["batch", "latent_height", "99*x", "../x", "text", "encoder", "table", "unet", "\ud800"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=BEHIND_A_FIXTURE)
def test_any_value_anywhere(bundle, data):
    """A forged manifest with other values in one to three places opens, or is refused with a BundleError."""
    content = json.loads(PLAIN.setdefault("content", (bundle.folder / MANIFEST).read_text()))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(content))[1:]))
        kind = data.draw(st.sampled_from(["replace", "remove", "other"]))
        above = at(content, path[:-1])
        if kind == "remove":
            del above[path[-1]]
        elif kind == "other":  # a value from elsewhere in the manifest has the right type more often
            above[path[-1]] = json.loads(json.dumps(at(content, data.draw(st.sampled_from(list(places(content))[1:])))))
        else:
            above[path[-1]] = data.draw(ODD)
    forge(bundle, content)
    try:
        opened_whole(bundle.folder)
    except BundleError as error:
        str(error).encode()


PLAIN = {}


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
