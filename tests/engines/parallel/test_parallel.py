"""Parallel sampling through the pipeline, on several engines, and from the command line."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from engines import __main__ as program
from engines import plugins
from engines.errors import UnsupportedError
from engines.parallel.picard import Picard
from engines.pipeline import Pipeline
from engines.signature import Range
from tests.engines import small
from tests.engines.test_sessions import Recorder

PROMPTS = ["a red square", "the blue sea", "a circle"]


def same(some, others):
    for one, other in zip(some, others, strict=True):
        assert np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max() <= 1


def test_without_tolerance_the_pictures_are_the_sequential_ones(pipeline):
    made = pipeline.generate(PROMPTS, steps=4, height=64, width=32, parallel=Picard(window=3, tolerance=0))
    same(made, pipeline.generate(PROMPTS, steps=4, height=64, width=32))
    assert [picture.info["sequential"] for picture in made] == ["4"] * 3
    assert all(int(picture.info["evaluations"]) > 4 for picture in made)


def test_a_sequential_picture_does_not_speak_of_iterations(pipeline):
    assert "iterations" not in pipeline.generate("a")[0].info


def test_the_window_becomes_the_batch(bundle, monkeypatch):
    calls = []
    monkeypatch.setattr(small, "BATCH", Range(min=1, typical=1, max=8))
    wide = small.make(bundle.folder.parent / "wide")
    made = Pipeline(wide, small.networks(wide, calls)).generate("a", parallel=Picard(window=2, tolerance=0))
    assert [batch for name, batch in calls if name == "unet"] == [2, 1]
    assert (made[0].info["iterations"], made[0].info["evaluations"]) == ("2", "3")


@pytest.mark.parametrize("batch", [Range(min=1, typical=1, max=2), Range(min=2, typical=4, max=6, multiple=2)])
@pytest.mark.parametrize("engines", [2, 3])
def test_several_engines_share_each_batch_and_change_nothing(tmp_path, monkeypatch, batch, engines):
    monkeypatch.setattr(small, "BATCH", batch)
    bundle, calls = small.make(tmp_path / "b"), [[] for _ in range(engines)]
    more = [small.networks(bundle, own)["unet"] for own in calls[1:]]
    wishes = {"steps": 4, "height": 64, "width": 32, "parallel": Picard(window=4, tolerance=0.01)}
    split = Pipeline(bundle, small.networks(bundle, calls[0]), denoisers=more).generate(PROMPTS, **wishes)
    whole = Pipeline(bundle, small.networks(bundle)).generate(PROMPTS, **wishes)
    for one, other in zip(split, whole, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        assert one.info == other.info
    assert all([name for name, _ in own].count("unet") for own in calls)


def test_engines_run_at_the_same_time_and_each_one_call_at_a_time(bundle):
    barrier, busy, networks = threading.Barrier(2, timeout=10), set(), []

    def meeting(number):
        def network(inputs):
            assert number not in busy
            busy.add(number)
            barrier.wait()
            busy.discard(number)
            return small.networks(bundle)["unet"](inputs)

        return network

    networks = [meeting(number) for number in range(2)]
    pipeline = Pipeline(bundle, {**small.networks(bundle), "unet": networks[0]}, denoisers=networks[1:])
    assert pipeline.generate(["a"] * 4)  # two pieces of two: neither engine gets on without the other


def test_an_error_in_one_engine_reaches_the_caller(bundle):
    def broken(_):
        raise UnsupportedError("engine 1 is out of memory")

    pipeline = Pipeline(bundle, small.networks(bundle), denoisers=[broken])
    with pytest.raises(UnsupportedError, match="engine 1 is out of memory"):
        pipeline.generate(PROMPTS, parallel=Picard(window=2))


def test_nan_in_the_middle_names_the_step(bundle):
    networks = small.networks(bundle)
    late = lambda inputs: {"model_output": np.where(inputs["timestep"] < 700, np.nan, 1)[:, None, None, None] * inputs["latent"]}  # noqa: E731
    with pytest.raises(UnsupportedError, match=r"step 2 of 2 \(t = 599\): the denoiser returned NaN"):
        Pipeline(
            bundle, {**networks, "unet": lambda inputs: {k: v.astype(np.float32) for k, v in late(inputs).items()}}
        ).generate("a", parallel=Picard(window=8))


def test_each_device_gets_its_own_denoiser(bundle, monkeypatch):
    log, load = [], plugins.load

    class Numbered(Recorder):
        model_fields = ("device",)

        def __init__(self, **options):
            super().__init__(bundle, log, **options)

    monkeypatch.setattr(plugins, "load", lambda kind, name: Numbered if kind == "backends" else load(kind, name))
    with Pipeline.open(bundle.folder, devices=3) as pipeline:
        assert pipeline.generate(PROMPTS, parallel=Picard(window=2))
    opened = [(entry[1], dict(entry[2]).get("device", 0)) for entry in log if entry[0] == "open"]
    assert sorted(opened) == [
        ("text_encoder.onnx", 0),
        ("unet.onnx", 0),
        ("unet.onnx", 1),
        ("unet.onnx", 2),
        ("vae_decoder.onnx", 0),
    ]
    assert len([entry for entry in log if entry[0] == "close"]) == 5


@pytest.fixture
def run(bundle, monkeypatch, tmp_path):
    asked = []

    @contextmanager
    def opened(path, backend, *, devices):
        assert (path, backend) == (bundle.folder, None)
        asked.append(devices)
        yield Pipeline(bundle, small.networks(bundle))

    monkeypatch.setattr(Pipeline, "open", opened)
    out = tmp_path / "p.png"

    def call(parallel, *more):
        done = CliRunner().invoke(program.generate, [str(bundle.folder), "a", "-o", str(out), "--parallel", parallel, *more])
        return done, asked, out

    return call


def test_the_command_says_what_it_took(run):
    done, asked, out = run("window=2,tolerance=0,devices=2")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{out}\n"
    assert done.stderr == "2 iterations, 3 evaluations; one after the other: 2, 2; 0 steps saved\n"
    assert asked == [2]
    with Image.open(out) as made:
        assert (made.text["iterations"], made.text["evaluations"], made.text["sequential"]) == ("2", "3", "2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("window=0", r"window: Input should be greater than or equal to 1"),
        ("tolerance=-0.1", r"tolerance: Input should be greater than or equal to 0"),
        ("tolerance=nan", r"tolerance: Input should be a finite number"),
        ("window=many", r"window: Input should be a valid integer"),
        ("window=4,toleranse=1", r"no key 'toleranse'; did you mean 'tolerance'\?"),
        ("window=4,window=5", r"window is named twice"),
        ("window", r"window has no number. Write window=1"),
        ("", r"no key ''; there are: window, tolerance, anderson, devices"),
        ("devices=0", r"devices=0 must be a whole number from 1 to 64"),
        ("devices=two", r"devices=two must be"),
    ],
)
def test_what_is_wrong_with_a_wish_is_said_before_anything_is_opened(run, text, message):
    import re

    done, asked, out = run(text)
    assert isinstance(done.exception, UnsupportedError)
    assert re.search(message, str(done.exception))
    assert done.exception.exit_code == 3
    assert not asked
    assert not out.exists()


def test_a_picture_says_how_it_was_sampled_and_is_made_again_so(run, tmp_path):
    first, _, out = run("window=2,tolerance=0.01,anderson=0")
    assert first.exit_code == 0, first.output
    with Image.open(out) as made:
        assert made.text["parallel"] == "window=2,tolerance=0.01,anderson=0"
        before = np.asarray(made)
    again = CliRunner().invoke(program.generate, [str(tmp_path / "small"), "--from", str(out), "-o", str(tmp_path / "q.png")])
    assert again.exit_code == 0, again.output
    with Image.open(tmp_path / "q.png") as other:
        assert other.text["parallel"] == "window=2,tolerance=0.01,anderson=0"
        np.testing.assert_array_equal(np.asarray(other), before)
