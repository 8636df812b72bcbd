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


@pytest.fixture
def cached(bundle, tmp_path):
    """The bundle as the Hugging Face hub's cache keeps it: links from a revision's snapshot into the repository's blobs."""
    repository = tmp_path / "models--me--small"
    snapshot, blobs = repository / "snapshots" / "0123abc", repository / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in bundle.folder.rglob("*") if path.is_file())):
        link = snapshot / path.relative_to(bundle.folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / f"{number:040x}")
        link.symlink_to(os.path.relpath(blobs / f"{number:040x}", link.parent))
    return snapshot


def test_a_bundle_in_the_hub_s_cache_opens(cached, tmp_path):
    assert opened_whole(cached).name == "small"
    (tmp_path / "link").symlink_to(cached)
    assert opened_whole(tmp_path / "link").name == "small"


def test_a_bundle_in_a_folder_of_a_repository_in_the_hub_s_cache_opens(cached):
    (cached / "bundles").mkdir()
    below = cached / "bundles" / "small"
    below.mkdir()
    for path in [path for path in cached.rglob("*") if path.is_symlink()]:
        moved = below / path.relative_to(cached)
        moved.parent.mkdir(parents=True, exist_ok=True)
        moved.symlink_to(os.path.relpath(path.resolve(), moved.parent))
    assert opened_whole(below).name == "small"


def lead(link, target):
    link.unlink()
    link.symlink_to(target)


@pytest.mark.parametrize("name", ["samplers/2.json", "onnx/20/unet.onnx", MANIFEST])
@pytest.mark.parametrize(
    "where", ["outside", "another cache", "deeper", "beside", "blob is a link", "blobs is a link", "itself", "nowhere", "folder"]
)
def test_what_leads_out_of_the_hub_s_cache_is_refused(cached, tmp_path, name, where):
    link, repository = cached / name, cached.parents[1]
    blob = link.resolve()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if where == "outside":
        lead(link, blob.rename(elsewhere / blob.name))
    elif where == "another cache":
        (tmp_path / "models--me--other" / "blobs").mkdir(parents=True)
        lead(link, blob.rename(tmp_path / "models--me--other" / "blobs" / blob.name))
    elif where == "deeper":
        (blob.parent / "deep").mkdir()
        lead(link, blob.rename(blob.parent / "deep" / blob.name))
    elif where == "beside":
        lead(link, blob.rename(link.with_name("beside.json")))
    elif where == "blob is a link":
        blob.symlink_to(blob.rename(elsewhere / blob.name))
    elif where == "blobs is a link":
        (repository / "blobs").symlink_to((repository / "blobs").rename(elsewhere / "blobs"))
    elif where == "itself":
        lead(link, link)
    elif where == "nowhere":
        lead(link, repository / "blobs" / "nothing")
    else:
        blob.unlink()
        blob.mkdir()
    with pytest.raises(BundleError, match=name.rpartition("/")[2] if where != "blobs is a link" else "json"):
        opened_whole(cached)


@pytest.mark.parametrize("above", ["onnx", "onnx/20"])
def test_a_folder_behind_a_link_in_the_hub_s_cache(cached, above):
    blobs = cached.parents[1] / "blobs"
    (cached / above).symlink_to((cached / above).rename(blobs / "folder"))
    with pytest.raises(BundleError, match="is a link"):
        opened_whole(cached)


def test_a_file_that_another_user_keeps_to_himself(bundle, monkeypatch):
    monkeypatch.setattr("engines.strict.os.access", lambda *_: False)  # these tests may run as root
    with pytest.raises(BundleError, match=r"manifest\.json may not be read by this user"):
        Bundle.open(bundle.folder)
