"""Engines again from the ONNX inside a bundle; the old bundle is whole until the new one is in its place."""

import errno
from pathlib import Path

import pytest

from engines import plugins
from engines.bundle import Bundle, Verdict
from engines.errors import BundleError, UnsupportedError
from engines.rebuild import rebuild
from engines.strict import Frozen
from tests.engines import small


class Toy(Frozen):
    threads: int = 0

    @property
    def here(self):
        return self.model_copy(update={"threads": 0}) if self.threads == 9 else self

    def refuse(self, precision):
        assert precision == "fp32"

    def build(self, onnx, _signature, folder):
        if onnx.stem == "unet" and self.threads == 2:
            raise UnsupportedError("the toy broke")
        (folder / f"{onnx.stem}.toy").write_bytes(onnx.read_bytes() * 2)
        return [folder / f"{onnx.stem}.toy"]


class Runner(Toy):
    def build(self, onnx, _signature, _folder):
        return [onnx]


Toy.opset, Toy.version = 20, "2.0"


@pytest.fixture
def folder(tmp_path):
    verdict = {"part": "unet", "stage": "s", "case": "c", "passed": True}
    kept, old = Verdict(**verdict), Verdict(**verdict, backend="onnxruntime")
    return small.make(tmp_path / "small", verdicts=(kept, old), notes=("a note",)).folder


@pytest.fixture
def backend(monkeypatch):
    return lambda kind: monkeypatch.setattr(plugins, "load", lambda _kind, _name: kind)


def test_an_engine_for_other_machines_becomes_this_one_s(folder, backend, monkeypatch):
    backend(Toy)
    monkeypatch.setattr(Toy, "model_validate", classmethod(lambda cls, _options: cls(threads=9)))
    rebuild(folder)
    assert Bundle.open(folder).manifest.parts["unet"].engines["onnxruntime"].options == {"threads": 0}


def test_new_engines_take_the_place_of_the_old(folder, backend):
    backend(Toy)
    told = rebuild(folder)
    assert told[0] == "text_encoder: built again with onnxruntime 2.0"
    opened = Bundle.open(folder)
    opened.verify()
    engine = opened.manifest.parts["unet"].engines["onnxruntime"]
    assert (engine.version, engine.options, engine.files) == ("2.0", {"threads": 1}, ("engines/onnxruntime/unet.toy",))
    assert opened.path(engine.files[0]).read_bytes() == b"onnx/20/unet.onnx" * 2
    assert [verdict.backend for verdict in opened.manifest.verdicts] == [None]
    assert opened.manifest.notes[0] == "a note"
    assert len(opened.manifest.notes) == 2
    rebuild(folder)
    assert len(Bundle.open(folder).manifest.notes) == 2
    assert [path.name for path in folder.parent.iterdir()] == ["small"]


def test_a_backend_that_runs_the_graph_writes_nothing(folder, backend):
    backend(Runner)
    rebuild(folder, "onnxruntime")
    assert Bundle.open(folder).manifest.parts["unet"].engines["onnxruntime"].files == ("onnx/20/unet.onnx",)
    assert not (folder / "engines").exists()


@pytest.mark.parametrize("kind", [Toy, Runner])
def test_what_is_the_user_s_stays(folder, backend, kind):
    backend(Toy)
    rebuild(folder)
    (folder / ".git").mkdir()
    mine = [folder / name for name in (".git/HEAD", ".gitattributes", "README.md", "engines/notes.txt")]
    for path in mine:
        path.write_text(path.name)
    before = {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file() and path.suffix != ".toy"}
    del before[folder / "manifest.json"]
    backend(kind)
    rebuild(folder)
    opened = Bundle.open(folder)
    opened.verify()
    assert [path.read_text() for path in mine] == [path.name for path in mine]
    assert {path: path.stat().st_ino for path in before} == before, "what is not built again is not even copied"
    assert {path.name for path in mine}.isdisjoint(Path(name).name for name in opened.manifest.files)
    assert sorted(path.name for path in folder.rglob("*.toy")) == ["text_encoder.toy", "unet.toy", "vae_decoder.toy"] * (
        kind is Toy
    )
    assert not list(folder.glob(".rebuild*"))


def test_a_bundle_that_cannot_be_written_to_is_not_rebuilt(folder, backend, monkeypatch):
    backend(Toy)

    def refuse(self, *_arguments, **_options):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(UnsupportedError, match=r"cannot be written to \(Read-only file system\).* Copy it"):
        rebuild(folder)


def test_a_failure_leaves_the_old_bundle_whole(folder, backend, monkeypatch):
    backend(Toy)
    before = (folder / "manifest.json").read_bytes()
    monkeypatch.setattr(Toy, "model_validate", classmethod(lambda cls, _options: cls(threads=2)))
    with pytest.raises(UnsupportedError, match="the toy broke"):
        rebuild(folder)
    assert (folder / "manifest.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["small"]


def test_what_cannot_be_rebuilt_is_told(folder, backend, monkeypatch):
    backend(Toy)
    with pytest.raises(UnsupportedError, match="did you mean 'onnxruntime'"):
        rebuild(folder, "onnxrutnime")
    monkeypatch.setattr(Toy, "opset", 23)
    with pytest.raises(UnsupportedError, match="operator set 23; this bundle's graphs have 20"):
        rebuild(folder)
    (folder / "onnx/20/unet.onnx").write_bytes(b"x")
    with pytest.raises(BundleError):
        rebuild(folder)
