"""From recipe to bundle: it passes, it is remembered, it says why it works again, and it survives being killed."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.bundle import Bundle
from engines.errors import ParityError, UnsupportedError
from engines.images.png import save
from engines.images.provenance import ImageProvenance
from engines.pipeline import Pipeline
from exporter.build import build, check
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from exporter.stages.store import Store
from tests.e2e.conftest import silent, standard_tools_open

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(1200)


def test_every_line_of_the_blame_table_passes(built):
    assert built.verdicts
    assert [verdict for verdict in built.verdicts if not verdict.passed] == []
    lines = {(verdict.part, verdict.stage) for verdict in built.verdicts}
    for part in ("text_encoder", "text_encoder_2", "unet", "vae_decoder"):
        assert {(part, stage) for stage in ("source → passes", "passes → onnx", "onnx → engine")} <= lines
    assert {("sampler", "source → table"), ("tokenizers", "source → tokens"), ("end to end", "image")} <= lines


def test_standard_tools_open_a_bundle_and_the_store_where_they_were_built(built):
    assert standard_tools_open(built.path) == 5
    assert standard_tools_open(built.store) >= 5  # other tests may have built into it


def test_checks_cover_batch_shape_and_guidance(built):
    cases = {verdict.case for verdict in built.verdicts if verdict.part == "unet"}
    for word in ("batch 2", "48×32", "guidance off", "step 1 of 4", "step 4 of 4"):
        assert any(word in case for case in cases), word


def test_checks_cover_pictures_from_an_image_and_within_a_mask(built):
    for part, stage in (("sampler", "source → table"), ("end to end", "worst step"), ("end to end", "image")):
        cases = {verdict.case.partition(",")[0] for verdict in built.verdicts if (verdict.part, verdict.stage) == (part, stage)}
        assert {"from an image", "within a mask"} <= cases
    assert [verdict.stage for verdict in built.verdicts if verdict.part == "vae_encoder"]


def test_the_bundle_changes_a_picture_and_makes_it_again(built, tmp_path):
    hole = Image.new("L", (32, 32), 0)
    hole.paste(255, (8, 8, 24, 32))
    with Pipeline.open(built.path) as pipeline:
        (first,) = pipeline.generate("a red circle", seed=3)
        (near,) = pipeline.generate("the blue square", image=first, strength=0.25)
        (filled,) = pipeline.generate("the blue square", image=first, mask=hole)
        save([filled], tmp_path / "filled.png")
        made = ImageProvenance.read(tmp_path / "filled.png")
        again = pipeline.generate(**made.wishes(built.bundle.manifest), image=first, mask=hole)[0]
    assert near.size == first.size
    kept = np.asarray(hole) == 0
    assert np.array_equal(np.asarray(filled)[kept], np.asarray(first)[kept])
    assert not np.array_equal(np.asarray(filled)[~kept], np.asarray(first)[~kept])
    assert np.array_equal(np.asarray(filled), np.asarray(again))


def test_the_bundle_holds_engines_of_every_part(built):
    for name, part in built.bundle.manifest.parts.items():
        assert set(part.engines) == {"onnxruntime", "tensorrt_rtx"}
        (engine,) = part.engines["tensorrt_rtx"].files
        assert built.bundle.path(engine).stat().st_size > 10_000, name
        graph = next(iter(part.onnx.values()))
        assert graph.nodes < graph.nodes_exported
    built.bundle.verify()


def test_the_manifest_says_that_no_gpu_was_there(built):
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU")
    assert any(note.startswith("tensorrt_rtx was not run") for note in built.bundle.manifest.notes)
    with pytest.raises(UnsupportedError, match="driver"):
        check(built.path, "tensorrt_rtx")


def test_the_bundle_draws_without_the_exporter(built):
    with Pipeline.open(built.path) as pipeline:
        first, again = (pipeline.generate("a red circle", seed=3)[0] for _ in range(2))
        other = pipeline.generate("the blue square", seed=3, width=48)[0]
    assert first.size == (32, 32)
    assert other.size == (48, 32)
    assert np.array_equal(np.asarray(first), np.asarray(again))


def test_a_second_build_reuses_everything_and_is_the_same(built, tmp_path):
    seen = []

    def report(stage, seconds=None, *, cached=False, why="", by=""):  # noqa: ARG001 - the protocol's
        if seconds is not None and not by:  # what the second process makes the build finds made
            seen.append((stage.name, cached))

    bundle, _ = build(Recipe.load(built.recipe), tmp_path / "again", Store(built.store), report)
    assert seen
    assert all(cached for _, cached in seen)
    assert bundle.manifest.files == built.bundle.manifest.files


def test_a_plan_of_finished_stages_loads_no_torch(built):
    code = f"""
import sys
from pathlib import Path
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from exporter.stages.plan import Plan
store = Store(Path({str(built.store)!r}))
plan = Plan(Recipe.load(Path({str(built.recipe)!r})))
print([stage.name for stage in plan.stages if store.why(stage.key)])
print([name for name in ("torch", "diffusers", "transformers", "onnx") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_only_what_depends_on_a_change_is_made_again_and_says_why(built):
    store = Store(built.store)
    plan = Plan(Recipe.load(built.recipe, ["components.vae_decoder.precision=fp16"]))
    why = {stage.name: store.why(stage.key) for stage in plan.stages}
    stale = {name for name, reason in why.items() if reason}
    assert {subject.partition(",")[0] for _, subject in stale} == {"vae_decoder"}
    assert {verb for verb, _ in stale} == {"measure", "export", "engine"}
    assert "fp32" in why["measure", "vae_decoder"]
    assert "fp16" in why["measure", "vae_decoder"]


@pytest.mark.long
def test_engines_are_reproducible(built, tmp_path):
    build(Recipe.load(built.recipe), tmp_path / "twice", Store(built.store), silent, reproducible=True)


def test_check_keeps_verdicts_in_the_manifest(built, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(built.path, copy)
    verdicts = check(copy, "onnxruntime")
    manifest = Bundle.open(copy).manifest
    assert all(verdict.passed for verdict in verdicts)
    assert manifest.verdicts == built.bundle.manifest.verdicts


def test_check_reads_what_the_manifest_lists_and_leaves_the_rest(built, tmp_path):
    copy = Path(shutil.copytree(built.path, tmp_path / "copy"))
    (copy / ".git").mkdir()
    for name in (".git/HEAD", ".gitattributes", "README.md", "picture of mine.png"):
        (copy / name).write_text("mine")
    before = Bundle.open(copy).manifest.files
    number = (copy / "manifest.json").stat().st_ino
    check(copy, "onnxruntime", receipt=False)
    assert (copy / "manifest.json").stat().st_ino == number
    check(copy, "onnxruntime")
    assert (copy / "manifest.json").stat().st_ino != number
    assert Bundle.open(copy).manifest.files == before
    assert (copy / "README.md").read_text() == "mine"


def test_check_of_a_bundle_that_cannot_be_written_to_says_that_nothing_is_kept(built, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(built.path, tmp_path / "copy"))
    before = (copy / "manifest.json").read_bytes()
    plain = Path.write_bytes

    def refuse(self, data):
        if copy in self.parents:
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        return plain(self, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    said = []
    assert all(verdict.passed for verdict in check(copy, "onnxruntime", said.append))
    assert said == [f"{copy}: the verdicts are not kept in the bundle, because it cannot be written to (Read-only file system)."]
    assert (copy / "manifest.json").read_bytes() == before
    said.clear()
    check(copy, "onnxruntime", said.append, receipt=False)
    assert said == []


def test_a_bundle_in_the_hub_s_cache_draws_and_is_checked_and_stays_as_it_is(built, tmp_path):
    repository = tmp_path / "models--me--tiny"
    snapshot = repository / "snapshots" / "0123abc"
    (repository / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in built.path.rglob("*") if path.is_file())):
        link = snapshot / path.relative_to(built.path)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, repository / "blobs" / str(number))
        link.symlink_to(os.path.relpath(repository / "blobs" / str(number), link.parent))
    with Pipeline.open(snapshot, "onnxruntime") as cached, Pipeline.open(built.path, "onnxruntime") as plain:
        one, other = (np.asarray(each.generate("a cat", seed=5)[0]) for each in (cached, plain))
    np.testing.assert_array_equal(one, other)
    said = []
    assert all(verdict.passed for verdict in check(snapshot, "onnxruntime", said.append))
    assert said == [f"{snapshot}: the verdicts are not kept in the bundle, because it lies in the hub's cache."]
    assert all(path.is_symlink() for path in snapshot.rglob("*") if path.is_file())


def test_an_engine_that_opens_and_does_not_answer_fails_the_check(built, tmp_path, monkeypatch):
    from engines.backends import onnxruntime

    answer = onnxruntime._Session.__call__

    def refused(self, inputs):
        if self._file.name != "unet.onnx":
            return answer(self, inputs)
        raise UnsupportedError("GroupNorm does not support the input")

    monkeypatch.setattr(onnxruntime._Session, "__call__", refused)
    copy = shutil.copytree(built.path, tmp_path / "copy")
    with pytest.raises(ParityError, match=r"(?s)unet.* fails when it is called.*GroupNorm does not"):
        check(copy, None)


def test_check_needs_nothing_that_only_a_build_needs(built, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(built.path, copy)
    code = f"""
import sys
for name in ("torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxscript", "ruamel", "safetensors", "scipy"):
    sys.modules[name] = None
from exporter.cli import main
main(["check", {str(copy)!r}, "--backend", "onnxruntime"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "end to end" in done.stdout


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_completes_with_the_same_digests(built, tmp_path):
    code = f"""
from pathlib import Path
from exporter.build import build
from exporter.stages.store import Store
from exporter.recipe.schema import Recipe
recipe, out, store = (Path(word) for word in {[str(built.recipe), str(tmp_path / "out"), str(tmp_path / "store")]!r})
build(Recipe.load(recipe), out, Store(store), lambda *a, **k: None)
"""
    moments = random.Random(0)  # noqa: S311 - moments to kill at
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
        time.sleep(moments.uniform(1.0, 25.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    rebuilt = Bundle.open(tmp_path / "out").manifest
    assert rebuilt.files == built.bundle.manifest.files
    assert rebuilt.digest == built.bundle.manifest.digest
    assert list((tmp_path).glob(".*partial*")) == []
