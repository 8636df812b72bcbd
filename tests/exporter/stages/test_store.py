"""The store: a killed build loses nothing finished, two builds do not harm each other, and a rebuild says why."""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from engines.disk import DiskFull, mounted_at
from exporter.stages import store as module
from exporter.stages.store import Store, default_root, key

#: Four stages that feed each other, slow enough to be killed in the middle of each; argv: root, seconds per file.
BUILD = textwrap.dedent("""
    import hashlib, sys, time
    from pathlib import Path
    from exporter.stages.store import Store, key

    store, pause = Store(Path(sys.argv[1]), print), float(sys.argv[2])
    before = "start"
    for stage in ("record", "export", "engine", "check"):
        wanted = key(stage, "unet", options={"stage": stage}, inputs={"before": before}, code={}, versions={})

        def make(folder):
            print("make", stage, flush=True)
            (folder / "deep").mkdir()
            for part in range(4):
                with (folder / f"deep/{part}").open("w") as file:
                    for line in range(4):
                        file.write(f"{stage} {before} {part} {line}" * 1000)
                        time.sleep(pause / 4)

        folder = store.folder(wanted, make)
        content = b"".join(file.read_bytes() for file in sorted(folder.rglob("[0-9]")))
        before = hashlib.sha256(content).hexdigest()
    print(before)
""")


def build(root, pause=0.0):
    return [sys.executable, "-c", BUILD, str(root), str(pause)]


def wanted(**options):
    return key(
        "export", "unet", options=options, inputs={"weights": "w1"}, code={"export.py": "c1"}, versions={"torch": "2.13.0"}
    )


def write(text="x"):
    return lambda folder: (folder / "model.onnx").write_text(text)


def never(_folder):
    pytest.fail("made again")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def test_a_finished_stage_is_reused_and_read_only(store):
    assert store.why(wanted(opset=20)) == "first build"
    assert not store.peek(wanted(opset=20))
    folder = store.folder(wanted(opset=20), write("graph"))
    assert store.folder(wanted(opset=20), never) == folder
    assert store.peek(wanted(opset=20))
    assert store.took(wanted(opset=20)) >= 0
    assert store.took(wanted(opset=1)) is None
    assert (folder / "model.onnx").read_text() == "graph"
    assert (folder / "model.onnx").stat().st_mode & 0o222 == 0
    assert list((store.root / "partial").iterdir()) == []


def test_a_key_is_its_content_and_not_its_order():
    assert str(wanted(a=1, b=[1, 2])) == str(wanted(b=(1, 2), a=1))
    other = key("export", "vae", options={"a": 1}, inputs={}, code={}, versions={})
    assert len({str(wanted(a=1)), str(wanted(a=1.5)), str(wanted(a="1")), str(other)}) == 4
    with pytest.raises(ValueError, match="JSON compliant"):
        wanted(a=float("nan"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"options": {"opset": 23, "passes": []}}, "options.opset 20 → 23"),
        ({"options": {"opset": 20, "passes": ["prune"]}}, 'options.passes [] → ["prune"]'),
        ({"options": {"opset": 20}}, "options.passes removed"),
        ({"inputs": {"weights": "w2"}}, "input weights changed"),
        ({"inputs": {"weights": "w1", "record": "r"}}, "input record added"),
        ({"code": {"export.py": "c2"}}, "code of export.py changed"),
        ({"code": {"export.py": "c2", "a": "1", "b": "1", "c": "1"}}, "code of a, b, c and 1 more changed"),
        ({"versions": {"torch": "2.14.0"}}, "torch 2.13.0 → 2.14.0"),
        (
            {"options": {"opset": 20, "passes": [], "deep": {}}, "versions": {"torch": "3"}},
            "options.deep added; torch 2.13.0 → 3",
        ),
    ],
)
def test_why_names_what_changed(store, changes, why):
    first = {"inputs": {"weights": "w1"}, "code": {"export.py": "c1"}, "versions": {"torch": "2.13.0"}}
    first["options"] = {"opset": 20, "passes": []}
    store.folder(key("export", "unet", **first), write())
    assert store.why(key("export", "unet", **first | changes)) == why
    assert store.why(key("export", "vae", **first | changes)) == "first build"


def test_why_compares_with_the_last_use(store):
    store.folder(wanted(opset=20), write())
    store.folder(wanted(opset=21), write())
    assert store.why(wanted(opset=22)) == "options.opset 21 → 22"
    store.folder(wanted(opset=20), never)
    assert store.why(wanted(opset=22)) == "options.opset 20 → 22"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda folder: rewrite(folder / "model.onnx", "grap"), "model.onnx has 4 bytes instead of 5"),
        (lambda folder: rewrite(folder / "model.onnx", "Graph"), "model.onnx has other content"),
        (lambda folder: rewrite(folder.parent / "entry.json", "{"), "entry.json is unreadable"),
        (lambda folder: rewrite(folder.parent / "entry.json", "[]"), "entry.json is unreadable"),
        (lambda folder: (folder.parent / "entry.json").unlink(), "entry.json is unreadable"),
    ],
)
def test_damage_is_noticed_told_and_mended(store, damage, told):
    damage(store.folder(wanted(), write("graph")))
    assert store.why(wanted()) == f"its entry was damaged: {told}"
    assert (store.folder(wanted(), write("graph")) / "model.onnx").read_text() == "graph"
    assert store.peek(wanted())


def rewrite(path, text):
    path.chmod(0o644)
    path.write_text(text)
    os.utime(path, ns=(1, 1))


def test_a_touched_file_is_no_damage(store):
    folder = store.folder(wanted(), write())
    os.utime(folder / "model.onnx", ns=(1, 1))
    assert store.peek(wanted())


def test_a_stage_that_fails_leaves_nothing(store):
    def make(folder):
        (folder / "half").write_text("x")
        raise KeyError("bug")

    with pytest.raises(KeyError):
        store.folder(wanted(), make)
    assert not store.peek(wanted())
    assert list((store.root / "partial").iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Quota exceeded")])
def test_a_full_disk_is_named_and_leaves_nothing(store, error):
    def make(folder):
        (folder / "half").write_text("x")
        raise error

    with pytest.raises(DiskFull, match=rf"export of unet: the disk at {mounted_at(store.root)} is full") as caught:
        store.folder(wanted(), make)
    assert caught.value.exit_code == 7
    assert list((store.root / "partial").iterdir()) == []
    assert (store.folder(wanted(), write()) / "model.onnx").exists()


def test_a_full_disk_is_recognised_behind_a_vendors_error(store, monkeypatch):
    def make(_folder):
        raise RuntimeError("cannot write engine")

    with pytest.raises(RuntimeError):
        store.folder(wanted(), make)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: module.shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(DiskFull, match=r"0\.0 MB free"):
        store.folder(wanted(), make)


def test_killed_at_any_moment_the_next_build_ends_the_same(tmp_path):
    expected = subprocess.run(build(tmp_path / "clean"), capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    root, chance = tmp_path / "killed", random.Random(7)  # noqa: S311 - a test's dice
    for _ in range(20):
        process = subprocess.Popen(build(root, 0.02), stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() is not None  # it has begun, or has nothing to do
        time.sleep(chance.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        finished = list((root / "entries").iterdir())
        assert all((entry / "entry.json").is_file() and len(list(entry.glob("files/deep/*"))) == 4 for entry in finished)
    done = subprocess.run(build(root), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == expected
    assert list((root / "partial").iterdir()) == []
    assert digests(root) == digests(tmp_path / "clean")


def digests(root):
    return {file.relative_to(root): hashlib.sha256(file.read_bytes()).hexdigest() for file in root.glob("entries/*/deep/*")}


def test_two_builds_at_once_share_the_work(tmp_path):
    both = [subprocess.Popen(build(tmp_path, 0.05), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    made = sorted(line for output in outputs for line in output if line.startswith("make"))
    assert made == ["make check", "make engine", "make export", "make record"]
    assert any(line.startswith("waiting for another process that makes") for output in outputs for line in output)


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_are_not(store):
    dead = store.root / "partial" / f"{'0' * 64}.12345678"
    dead.mkdir()

    def make(folder):
        Store(store.root)  # another build begins
        assert folder.is_dir()
        (folder / "x").write_text("x")

    store.folder(wanted(), make)
    assert not dead.exists()
    with store.scratch() as folder:
        Store(store.root)
        assert folder.is_dir()
    assert not folder.exists()


def test_the_store_lies_where_the_standard_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "t2iexport"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_root() == Path.home() / ".cache/t2iexport"
