"""A benchmark of the toy bundle: who draws when, what is counted, and what is told. No figure here depends on a real clock."""

import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from engines.bundle import Bundle
from engines.errors import BundleError, MissingDependency, UnsupportedError
from engines.pipeline import Pipeline
from exporter import machine
from exporter.bench import run
from exporter.bench.stopwatch import STAGES, Stopwatch
from tests.engines import small


@pytest.fixture
def opened(monkeypatch):
    """Bundles whose networks are functions; notes (path, backend) of what is opened."""
    log = []

    @contextmanager
    def open_functions(path, backend=None, *, wrap):
        bundle = Bundle.open(path)
        log.append((str(path), backend))
        functions = small.networks(bundle)
        yield Pipeline(bundle, {name: wrap(name, "toy", call) for name, call in functions.items()}, f"toy {backend}")

    monkeypatch.setattr(Pipeline, "open", open_functions)
    return log


@pytest.fixture
def path(tmp_path):
    return small.make(tmp_path / "one").folder


def contestant(name, log, clock):
    """Takes as many seconds as its name is long."""

    def draw(batch):
        log.append((name, batch))
        clock[0] += len(name)
        return [Image.new("RGB", (8, 8))] * batch

    return run.Contestant(name, "a test", draw, Stopwatch(lambda: clock[0]))


def report(**changes):
    def timing(name, *seconds):
        stages = dict.fromkeys(STAGES, (0.0,) * len(seconds)) | {"denoiser": seconds, "decoder": (0.5,) * len(seconds)}
        return run.Timing(contestant=name, runs_on="b", batch=2, stages=stages, calls={"denoiser": 4, "decoder": 1})

    made = {
        "task": run.Task(prompt="a sea", steps=4, height=32, width=64, guidance_scale=2.0),
        "repeats": 3,
        "reference": "diffusers",
        "timings": (timing("mine", 0.5, 1.5, 0.5), timing("diffusers", 1.0, 3.5, 5.0)),
        "psnr": {"mine": 61.25, "diffusers": 200.0},
        "cold": {"mine": machine.Cold(seconds=1.5, peak=150_000_000)},
        "environment": machine.environment(),
    }
    return run.BenchReport(**{**made, **changes})


def test_everybody_draws_in_every_round_and_another_one_begins(tmp_path):
    log, clock = [], [0.0]
    field = [contestant(name, log, clock) for name in ("a", "bb", "ccc")]
    timings, pictures = run.race(field, [1, 4], 2, tmp_path)
    rounds = [log[start : start + 3] for start in range(0, len(log), 3)]
    one = [["bb", "ccc", "a"], ["ccc", "a", "bb"], ["a", "bb", "ccc"], ["bb", "ccc", "a"]]
    assert [[name for name, _ in turn] for turn in rounds] == one * 2
    assert [batch for _, batch in log] == [1] * 12 + [4] * 12
    assert [(each.contestant, each.batch) for each in timings] == [(n, b) for b in (1, 4) for n in ("a", "bb", "ccc")]
    assert [list(each.seconds) for each in timings[:3]] == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert [len(made) for made in pictures.values()] == [1, 1, 1]
    assert len(list(tmp_path.glob("*.png"))) == 5  # one of batch 1, four of batch 4


@pytest.mark.usefixtures("opened")
def test_the_stages_of_a_bundle_add_up_to_the_whole(path):
    found = run.bench(path, batches=(1, 3), repeats=3, cold=False)
    assert found.task == run.Task(prompt=found.task.prompt, steps=2, height=32, width=32, guidance_scale=2.0)
    assert "astronaut" in found.task.prompt  # an unchecked bundle has no recording to take a prompt from
    one, three = found.timings
    assert (one.batch, three.batch) == (1, 3)
    assert one.calls == {"text": 1, "denoiser": 2, "decoder": 1}
    assert three.calls == {"text": 2, "denoiser": 4, "decoder": 2}  # the networks take two at once
    for timing in found.timings:
        assert set(timing.stages) == set(STAGES)
        assert all(seconds >= 0 for stage in timing.stages.values() for seconds in stage)
        assert sum(timing.share(stage) for stage in STAGES) == pytest.approx(1)
        assert timing.percentile(50) <= timing.percentile(95)
        assert timing.rate * timing.percentile(50) == pytest.approx(timing.batch)
    assert found.ratio(one) == 1.0
    assert (found.cold, found.reference, found.psnr) == ({}, str(path), {str(path): 200.0})


def test_other_bundles_and_backends_draw_the_same(path, opened, tmp_path):
    other = small.make(tmp_path / "other", name="another").folder
    said = []
    found = run.bench(path, [str(other), "onnxruntime", str(other)], repeats=1, steps=2, cold=False, say=said.append)
    assert opened == [(str(path), None), (str(other), None), (str(path), "onnxruntime")]
    assert [each.contestant for each in found.timings] == [str(path), str(other), "onnxruntime"]
    assert [each.runs_on for each in found.timings] == ["toy None", "toy None", "toy onnxruntime"]
    assert set(found.psnr.values()) == {200.0}
    assert said[:2] == [f"opening {path}", f"opening {other}"]


@pytest.mark.usefixtures("opened")
def test_whoever_cannot_draw_the_task_is_named(path, tmp_path):
    with pytest.raises(UnsupportedError, match=r"'diffuser' is neither .*; did you mean 'diffusers'"):
        run.bench(path, ["diffuser"])
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        run.bench(path, [str(tmp_path)])
    with pytest.raises(UnsupportedError, match="no sampler of 3 steps"):
        run.bench(path, steps=3)
    plain = small.make(tmp_path / "plain", mode="none").folder
    with pytest.raises(UnsupportedError, match="other guidance"):
        run.bench(path, [str(plain)])
    perturbed = small.make(tmp_path / "perturbed", **small.perturbed()).folder
    with pytest.raises(UnsupportedError, match="other guidance"):  # one branch more at every step
        run.bench(path, [str(perturbed)])


def test_a_fresh_process_draws_the_same_task(path, opened, monkeypatch):
    commands = []

    def cold(command, variables, python):
        assert python == sys.executable
        commands.append((*command[:-1], variables))
        return machine.Cold(seconds=1.0, peak=2)

    monkeypatch.setattr(machine, "cold", cold)
    found = run.bench(path, ["onnxruntime"], repeats=1)
    assert opened
    assert [command[:3] for command in commands] == [("-m", "engines", str(path))] * 2
    assert [command[3:-1] for command in commands] == [
        (found.task.prompt, "--steps", "2", "-o"),
        (found.task.prompt, "--steps", "2", "--backend", "onnxruntime", "-o"),
    ]
    assert found.cold == dict.fromkeys((str(path), "onnxruntime"), machine.Cold(seconds=1.0, peak=2))


def test_a_baseline_without_torch_says_what_to_install(path, opened, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"pip install 't2iexport\[compile\]'"):
        run.bench(path, ["diffusers"])
    assert opened


def test_a_ratio_is_of_runs_of_one_round():
    made = report()
    mine, other = made.timings
    assert made.ratio(mine) == 1.0
    assert made.ratio(other) == np.median([1.5 / 1.0, 4.0 / 2.0, 5.5 / 1.0])
    assert other.percentile(50) == 4.0
    assert other.percentile(50, "denoiser") == 3.5
    assert mine.share("decoder") == 1.5 / 4.0
