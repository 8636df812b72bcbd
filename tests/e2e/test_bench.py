"""The baselines are the source model on the same noise, and the gate for speed decides over publishing."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from engines.bundle import Bundle
from engines.errors import ParityError, SpeedError, UnsupportedError
from exporter.bench import run
from exporter.bench.diffusers import source
from exporter.bench.stopwatch import Stopwatch
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import silent

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]


def drawn_alike(path, against=("diffusers", "diffusers-bf16")):
    """Bench with one round; the baselines' pictures must be the bundle's."""
    report = run.bench(path, against, batches=(1, 2), repeats=1, cold=False)
    assert report.reference == "diffusers"
    assert report.psnr[str(path)] >= 50
    assert report.psnr["diffusers"] == 200
    for timing in report.timings:
        assert timing.calls["denoiser"] == 4
        assert all(timing.percentile(50, stage) > 0 for stage in ("text", "denoiser", "sampler", "decoder", "image"))
    return report


def test_diffusers_draws_what_the_bundle_draws(built):
    report = drawn_alike(built.path)
    assert 20 <= report.psnr["diffusers-bf16"] < 200
    assert {timing.runs_on.partition(" ")[0] for timing in report.timings} == {"onnxruntime", "torch"}


def test_a_sampler_that_draws_in_between_gets_the_same_noise(built, tmp_path):
    ancestral = "sampler.scheduler=EulerAncestralDiscreteScheduler"
    build(Recipe.load(built.recipe, [ancestral]), tmp_path / "ancestral", Store(built.store), silent)
    drawn_alike(tmp_path / "ancestral", ["diffusers"])


def test_a_source_that_is_elsewhere_is_told(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, _ = source(built.bundle)
    moved = built.bundle.manifest.model_copy(update={"recipe": recipe.text.replace(recipe.model.source, "gone")})
    with pytest.raises(UnsupportedError, match=r"'gone' is neither a file or folder[^\n]*\n  A path is looked for in"):
        source(Bundle(built.path, moved))


def test_a_bundle_is_timed_where_there_is_no_torch(built):
    code = f"""
import sys
for name in ("torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxscript", "ruamel", "safetensors", "matplotlib"):
    sys.modules[name] = None
from exporter.cli import main
main(["bench", {str(built.path)!r}, "--repeats", "1"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "denoiser" in done.stdout
    assert "peak MB" in done.stdout


@pytest.fixture
def rival(monkeypatch):
    """Everybody races against someone who takes as many times as long as the bundle as this says."""
    times, clock, races = [2.0], [0.0], []

    def contestant(name, seconds):
        def draw(batch):
            clock[0] += seconds()
            return [Image.new("RGB", (8, 8))] * batch

        return run.Contestant(name, "a test", draw, Stopwatch(lambda: clock[0]))

    @contextmanager
    def contestants(path, against, task, *, root):
        races.append((path.name, against, task.steps, root))
        yield [contestant("own", lambda: 1.0), contestant("rival", lambda: times[0])]

    monkeypatch.setattr(run, "contestants", contestants)
    return times, races


def test_the_gate_decides_over_publishing(built, rival, tmp_path):
    times, races = rival
    out, store = tmp_path / "out", Store(built.store)
    faster = Recipe.load(built.recipe, ["checks.faster_than={against: diffusers, ratio: 1.5}"])
    bundle, _ = build(faster, out, store, silent)
    (told,) = [note for note in bundle.manifest.notes if note.startswith("speed: ")]
    assert "2.00 times as fast as diffusers, at least 1.5 is asked" in told
    assert races == [(".out.partial", ["diffusers"], 4, built.recipe.parent)]
    assert bundle.manifest.files == built.bundle.manifest.files
    times[0] = 1.0
    again, _ = build(faster, out, store, silent)  # won before, by the same bundle on the same machine
    assert again.manifest.digest == bundle.manifest.digest
    assert len(races) == 1
    much = Recipe.load(built.recipe, ["checks.faster_than={against: diffusers, ratio: 3}"])
    for _ in range(2):  # one that was lost is run again
        with pytest.raises(SpeedError, match=rf"too slow: 1\.00 times .*\n.*{out}\.rejected; {out} was not touched"):
            build(much, out, store, silent)
    assert len(races) == 3
    assert Bundle.open(out).manifest.digest == bundle.manifest.digest
    assert Bundle.open(tmp_path / "out.rejected").manifest.files == bundle.manifest.files
    assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []


def test_a_bundle_of_too_little_quality_is_not_published(built, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\nthe blue square\n")
    out, store = tmp_path / "out", Store(built.store)

    def asked(floor):
        quality = f"checks.quality={{psnr: {{at_least: {floor}, prompts: {prompts}}}}}"
        return Recipe.load(built.recipe, [quality])

    bundle, _ = build(asked(40), out, store, silent)
    (told,) = [note for note in bundle.manifest.notes if note.startswith("quality: ")]
    assert told.endswith("over 2 prompts; at least 40.0 is asked")
    with pytest.raises(ParityError, match=rf"too low a quality: PSNR (?s:.*){out}\.rejected; {out} was not touched"):
        build(asked(300), out, store, silent)  # more than equal pictures score
    assert Bundle.open(out).manifest.digest == bundle.manifest.digest


@pytest.mark.long
def test_quality_that_is_missed_is_blamed_on_a_pass(built, tmp_path):
    prompts, out, store = tmp_path / "prompts.txt", tmp_path / "out", Store(built.store)
    prompts.write_text("a red circle\nthe blue square\n")
    asked = [f"checks.quality={{psnr: {{at_least: 300, prompts: {prompts}}}}}", "targets=[onnxruntime]"]
    passes = "components.unet.passes=[{quantize: {format: int8-weights, keep_above: 40}}]"
    with pytest.raises(ParityError) as refused:
        build(Recipe.load(built.recipe, [*asked, passes]), out, store, silent)
    said = str(refused.value).splitlines()
    assert said[1] == "PSNR after each pass, of the same prompts and noise:"
    assert [line.split("  ")[1] for line in said[2:4]] == ["no pass", "unet: quantize: int8-weights"]
    assert said[4].startswith("It is missed without any pass: look at the sampler, the precision and the targets.")
    assert said[5].startswith(f"The rejected one lies at {out}.rejected")
    before, after = (float(line.split("  ")[-2 if "(" in line else -1]) for line in said[2:4])
    assert after < before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own compiler
def test_what_torch_compiles_draws_the_same_in_a_fresh_process_too(built):
    report = run.bench(built.path, ["diffusers", "diffusers-compile"], repeats=1)
    assert report.psnr["diffusers-compile"] >= 50
    assert set(report.cold) == {str(built.path), "diffusers", "diffusers-compile"}
    assert all(found.peak > 2**26 for found in report.cold.values())
