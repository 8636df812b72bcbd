import errno
import hashlib
import json
import os
import stat

import pytest

from engines import bundle as module
from engines.bundle import Bundle, publish, write
from engines.disk import DiskFull, mounted_at
from engines.errors import BundleError, UnsupportedError
from tests.engines import small

COPY = getattr(os, "copy_file_range", None)


def test_what_is_written_is_what_is_read(bundle):
    again = Bundle.open(bundle.folder)
    again.verify()
    assert again.manifest == bundle.manifest
    assert again.manifest.model_dump(exclude={"files", "digest", "format"}) == small.draft().model_dump()
    file = again.manifest.files["samplers/2.json"]
    data = again.path("samplers/2.json").read_bytes()
    assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_same_content_gives_the_same_bytes(tmp_path):
    first, second = (small.make(tmp_path / name).folder / module.MANIFEST for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text()
    assert text.endswith("}\n")
    assert json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n" == text


def test_writing_again_replaces_the_manifest(bundle):
    (bundle.folder / "LICENSE").write_text("terms")
    again = write(bundle.folder, small.draft())
    assert set(again.manifest.files) == {*bundle.manifest.files, "LICENSE"}


def test_what_a_backend_learns_while_it_runs_is_no_part_of_it(bundle):
    cache = bundle.folder / "engines" / "openvino" / "cache"
    cache.mkdir(parents=True)
    (cache / "123.blob").write_text("kernels")
    assert write(bundle.folder, small.draft()).manifest == bundle.manifest


def test_a_draft_comes_back_out_of_a_manifest(bundle):
    assert module.draft(bundle.manifest) == small.draft()
    again = write(bundle.folder, module.draft(bundle.manifest, notes=("a note",)))
    assert again.manifest.notes == ("a note",)
    assert again.manifest.files == bundle.manifest.files


def test_a_named_file_that_is_absent_is_not_written_about(bundle):
    (bundle.folder / "samplers/4.json").unlink()
    with pytest.raises(BundleError, match=r"samplers/4\.json"):
        write(bundle.folder, small.draft())
    assert Bundle.open(bundle.folder).manifest == bundle.manifest


def test_a_link_is_not_written_about(bundle):
    (bundle.folder / "extra").symlink_to("samplers/2.json")
    with pytest.raises(BundleError, match="not a link"):
        write(bundle.folder, small.draft())


def test_a_file_is_measured_once_per_opening(bundle, monkeypatch):
    measured = []
    measure = module.measure
    monkeypatch.setattr(module, "measure", lambda path: measured.append(path.name) or measure(path))
    for _ in range(3):
        bundle.path("samplers/2.json")
    assert measured == ["2.json"]
    bundle.verify()
    assert len(measured) == len(bundle.manifest.files)


def test_a_file_that_is_not_listed_is_not_given(bundle):
    (bundle.folder / "extra.json").write_text("{}")
    with pytest.raises(BundleError, match="not a file of the bundle"):
        bundle.path("extra.json")


def test_publish_puts_a_new_bundle_in_place(bundle, tmp_path):
    final = tmp_path / "deep" / "final"
    publish(bundle.folder, final)
    Bundle.open(final).verify()
    assert not bundle.folder.exists()


def theirs(folder):
    """Put files of the user's into a bundle's folder; what they must be afterwards."""
    for name in (".git/HEAD", ".gitattributes", "README.md", "pictures/1.png", "onnx/notes.txt", "samplers/mine/a.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"the user's {name}")
    (folder / "link").symlink_to("/etc/hostname")
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "the user's" in path.read_text("latin1")}


@pytest.fixture
def old(tmp_path):
    """A bundle that lies in the place of the new one, and has a file that the new one lacks."""
    folder = small.make(tmp_path / "final", name="old").folder
    (folder / "recordings" / "deep").mkdir(parents=True)
    (folder / "recordings" / "deep" / "old.npz").write_text("x")
    return write(folder, small.draft(name="old")).folder


def test_publish_replaces_the_bundle_and_nothing_else(bundle, old, tmp_path):
    mine = theirs(old)
    publish(bundle.folder, old)
    opened = Bundle.open(old)
    opened.verify()
    assert opened.manifest.name == "small"
    assert {path: path.read_bytes() for path in mine} == mine
    assert (old / "link").is_symlink()
    ours = {*opened.manifest.files, module.MANIFEST}
    found = {path.relative_to(old).as_posix() for path in old.rglob("*") if path.is_file() and path not in mine}
    assert found - {"link"} == ours
    assert not (old / "recordings").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final"]


def test_no_reader_finds_a_half_bundle(bundle, old, monkeypatch):
    """After every single step the manifest is that of one bundle, and a file of the other is refused."""
    replace, seen = module.Path.replace, []
    (bundle.folder / "samplers/2.json").write_text((bundle.folder / "samplers/2.json").read_text() + " ")
    write(bundle.folder, small.draft())

    def watched(self, target):
        replace(self, target)
        reader = Bundle.open(old)
        try:
            reader.verify()
        except BundleError:
            seen.append("refused")
        else:
            seen.append(reader.manifest.name)

    monkeypatch.setattr(module.Path, "replace", watched)
    publish(bundle.folder, old)
    assert seen[0] == "old"
    assert seen[-1] == "small"
    assert "refused" in seen
    assert seen == sorted(seen, key=["old", "refused", "small"].index)


def test_a_reader_that_is_at_work_notices_that_a_file_was_replaced(bundle, tmp_path):
    reader = Bundle.open(bundle.folder)
    reader.verify()
    other = small.make(tmp_path / "other").folder
    (other / "samplers/2.json").write_text((other / "samplers/2.json").read_text() + " ")
    write(other, small.draft())
    publish(other, bundle.folder)
    assert reader.path("samplers/4.json")
    with pytest.raises(BundleError, match=r"2\.json is damaged"):
        reader.path("samplers/2.json")


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_publish_replaces_no_file_that_the_old_bundle_does_not_list(bundle, old, kind):
    (bundle.folder / "LICENSE").write_text("terms")
    write(bundle.folder, small.draft())
    if kind == "file":
        (old / "LICENSE").write_text("the user's own")
    elif kind == "link":
        (old / "LICENSE").symlink_to("README.md")
    else:
        (old / "LICENSE").mkdir()
    with pytest.raises(UnsupportedError, match="LICENSE is not of the bundle that lies there"):
        publish(bundle.folder, old)
    assert Bundle.open(old).manifest.name == "old"
    Bundle.open(old).verify()
    Bundle.open(bundle.folder).verify()


@pytest.mark.parametrize("name", ["samplers", "recordings"])
def test_publish_writes_and_removes_nothing_through_a_link(bundle, old, tmp_path, name):
    (old / name).rename(tmp_path / "elsewhere")
    (old / name).symlink_to(tmp_path / "elsewhere")
    before = {path: path.is_file() and path.read_bytes() for path in (tmp_path / "elsewhere").rglob("*")}
    with pytest.raises(UnsupportedError, match=f"{name} is a link, and nothing is written through it"):
        publish(bundle.folder, old)
    assert {path: path.is_file() and path.read_bytes() for path in (tmp_path / "elsewhere").rglob("*")} == before


def test_publish_into_a_fresh_repository(bundle, tmp_path):
    final = tmp_path / "final"
    (final / ".git").mkdir(parents=True)
    (final / ".gitattributes").write_text("*.onnx filter=lfs")
    publish(bundle.folder, final)
    Bundle.open(final).verify()
    assert {path.name for path in final.iterdir() if path.name.startswith(".")} == {".git", ".gitattributes"}


def test_publish_over_another_filesystem(bundle, old, monkeypatch):
    """A folder may be a mount: nothing can be renamed or linked into it."""
    replace = module.Path.replace

    def across(self, target):
        if (old in self.parents) != (old in target.parents):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, target)

    def refuse(*_paths, **_options):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(module.Path, "replace", across)
    monkeypatch.setattr(module.os, "link", refuse)
    mine = theirs(old)
    publish(bundle.folder, old)
    assert Bundle.open(old).manifest.name == "small"
    Bundle.open(old).verify()
    assert {path: path.read_bytes() for path in mine} == mine
    assert not list(old.rglob("*.partial"))


def test_other_receipts_leave_the_list_of_files_as_it_is(bundle):
    mine = theirs(bundle.folder)
    again = module.revise(bundle, notes=("a note",))
    assert again.manifest.notes == ("a note",)
    assert again.manifest.files == bundle.manifest.files
    again.verify()
    assert {path: path.read_bytes() for path in mine} == mine


def test_publish_into_an_empty_folder(bundle, tmp_path):
    final = tmp_path / "final"
    final.mkdir()
    publish(bundle.folder, final)
    Bundle.open(final).verify()


@pytest.mark.parametrize("content", ["file", "folder", "web site"])
def test_publish_replaces_nothing_but_a_bundle(bundle, tmp_path, content):
    final = tmp_path / "final"
    if content == "file":
        final.write_text("precious")
    else:
        final.mkdir()
        name = "precious.txt" if content == "folder" else module.MANIFEST  # browsers read a file of that name too
        (final / name).write_text('{"name": "my web site"}')
    with pytest.raises(UnsupportedError, match="not replaced"):
        publish(bundle.folder, final)
    assert final.exists()
    Bundle.open(bundle.folder).verify()


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("fails", ["onnx/20/unet.onnx", "samplers/4.json", "zeta/new.json", module.MANIFEST])
def test_publish_puts_the_old_bundle_back_when_it_fails(bundle, old, monkeypatch, fails, links):
    (bundle.folder / "zeta").mkdir()
    (bundle.folder / "zeta/new.json").write_text("{}")
    (bundle.folder / "samplers/2.json").write_text((bundle.folder / "samplers/2.json").read_text() + " ")
    write(bundle.folder, small.draft())
    mine = theirs(old)
    before = {path: path.is_file() and path.read_bytes() for path in old.rglob("*")}
    replace = module.Path.replace

    def failing(self, target):
        if self == bundle.folder / fails:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(module.Path, "replace", failing)
    if not links:
        monkeypatch.setattr(module.os, "link", lambda *_a, **_o: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    with pytest.raises(OSError, match="No space"):
        publish(bundle.folder, old)
    assert {path: path.is_file() and path.read_bytes() for path in old.rglob("*")} == before
    assert set(mine) < set(before)
    Bundle.open(old).verify()


def test_publish_refuses_an_unfinished_bundle(tmp_path):
    (tmp_path / "temporary").mkdir()
    with pytest.raises(BundleError, match="missing"):
        publish(tmp_path / "temporary", tmp_path / "final")


def test_a_full_disk_is_told(bundle, monkeypatch):
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DiskFull, match=r"manifest\.json: the disk at .* is full"):
        write(bundle.folder, small.draft())


def test_a_bundle_works_through_a_link_to_its_folder_and_read_only(bundle, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(bundle.folder)
    for path in [bundle.folder, *bundle.folder.rglob("*")]:
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    try:
        Bundle.open(link).verify()
    finally:
        for path in [bundle.folder, *bundle.folder.rglob("*")]:
            os.chmod(path, 0o700)  # noqa: PTH101 - follows the walk


def refuse(*_arguments):
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def short(read, written, count):
    """The kernel may copy less than it was asked to."""
    return COPY(read, written, min(count, 1000))


@pytest.mark.parametrize("copy", [None, COPY, short, refuse])
def test_a_placed_file_is_a_file_of_its_own(tmp_path, monkeypatch, copy):
    content = bytes(range(256)) * 20
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "a").chmod(0o444)
    if copy is None:
        monkeypatch.delattr(module.os, "copy_file_range", raising=False)
    else:
        monkeypatch.setattr(module.os, "copy_file_range", copy, raising=False)
    module.place(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").read_bytes() == content
    assert (tmp_path / "a").stat().st_nlink == (tmp_path / "deep" / "b").stat().st_nlink == 1
    (tmp_path / "deep" / "b").write_bytes(b"changed")
    assert (tmp_path / "a").read_bytes() == content


def test_a_full_disk_is_the_one_of_the_new_file(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(module.os, "copy_file_range", full, raising=False)
    with pytest.raises(DiskFull, match=rf"writing {tmp_path / 'b'}: the disk at {mounted_at(tmp_path)} is full"):
        module.place(tmp_path / "a", tmp_path / "b")
