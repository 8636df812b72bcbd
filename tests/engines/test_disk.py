"""What the machine refuses is a sentence that names the place, and outputs are tried before the work."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from engines import disk
from engines.disk import DiskFull, mounted_at, refusal, require_file, require_folder, writing
from engines.errors import MachineError

NOBODY = 65534


@pytest.fixture
def locked():
    """A folder that may be read and not written; whoever is root is somebody else meanwhile."""
    folder = Path(tempfile.mkdtemp())
    (folder / "there").write_text("x")
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_an_output_is_tried_and_leaves_nothing(tmp_path):
    (tmp_path / "old").write_text("kept")
    for name in ("new", "old"):
        require_file(tmp_path / name)
    require_folder(tmp_path / "deep" / "er")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "er", "old"]
    assert (tmp_path / "old").read_text() == "kept"
    require_file(Path(os.devnull))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none/x.json", "there is no folder .*none. Make it"),
        (".", "is a folder"),
        ("file/x.json", "there is no folder .*file"),
        (f"{'x' * 300}", "File name too long"),
    ],
)
def test_a_place_where_no_file_can_be(tmp_path, name, told):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=told):
        require_file(tmp_path / name)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(MachineError, match="cannot be made a folder"):
            require_folder(path)


def test_a_folder_of_another_user(locked):
    with pytest.raises(MachineError, match="new cannot be written: Permission denied"):
        require_file(locked / "new")
    with pytest.raises(MachineError, match="there cannot be written: Permission denied"):
        require_file(locked / "there")
    with pytest.raises(MachineError, match=f"{locked} cannot be written: Permission denied"):
        require_folder(locked)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_real_full_device_is_told(tmp_path):
    with pytest.raises(DiskFull, match=r"writing x: the disk at .* is full"), writing(tmp_path, "writing x"):
        Path("/dev/full").write_text("x")


def test_the_full_one_of_two_disks_is_named(tmp_path, monkeypatch):
    free = {tmp_path / "source": 10**9, tmp_path / "target": 3_000_000}
    monkeypatch.setattr(disk, "_free", lambda path: free[path])
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "source"))
    named = []
    monkeypatch.setattr(disk, "mounted_at", lambda path: named.append(path) or path)
    assert "(3.0 MB free)" in str(refusal(error, "copying", tmp_path / "target"))
    assert named == [tmp_path / "target"]


def test_a_mistake_of_the_program_stays_one(tmp_path):
    for error in (FileNotFoundError(errno.ENOENT, "No such file", "x"), OSError("unknown"), ValueError("x")):
        assert refusal(error) is None
        with pytest.raises(type(error)), writing(tmp_path, "building"):
            raise error


def test_the_mount_of_what_is_not_there_yet(tmp_path):
    assert mounted_at(tmp_path / "not" / "there") == mounted_at(tmp_path)
    assert mounted_at(Path("/")) == Path("/")
