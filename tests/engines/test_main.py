import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from engines import __main__ as program
from engines.errors import MachineError, UnsupportedError
from engines.pipeline import Pipeline
from tests.engines import small
from tests.engines.images.test_init_image import image, mask


@pytest.fixture
def run(bundle, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def opened(path, backend, *, devices):
        assert (path, backend, devices) == (bundle.folder, None, 1)
        yield Pipeline(bundle, small.networks(bundle))

    monkeypatch.setattr(Pipeline, "open", opened)
    return lambda *arguments: CliRunner().invoke(program.generate, [str(bundle.folder), *map(str, arguments)])


def test_a_picture_is_written(run, pipeline, tmp_path):
    out = tmp_path / "p.png"
    done = run("a red square", "-o", out, "--seed", 3, "--steps", 2, "--guidance-scale", 3.5, "--negative-prompt", "sea")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [str(out)]
    with Image.open(out) as read:
        assert {key: read.text[key] for key in ("prompt", "seed", "steps", "guidance_scale", "negative_prompt", "bundle")} == {
            "prompt": "a red square",
            "seed": "3",
            "steps": "2",
            "guidance_scale": "3.5",
            "negative_prompt": "sea",
            "bundle": "small",
        }
        (same,) = pipeline.generate("a red square", seed=3, guidance_scale=3.5, negative_prompt="sea")
        np.testing.assert_array_equal(np.asarray(read), np.asarray(same))


def test_perturbed_attention_where_there_is_none_is_told_as_to_python(run, tmp_path):
    done = run("a", "b", "-o", tmp_path / "p.png", "--pag-scale", 2, "--pag-scale", 3)
    assert isinstance(done.exception, UnsupportedError)
    assert "has no perturbed attention" in str(done.exception)
    assert not list(tmp_path.glob("*.png"))


def test_several_prompts(run, tmp_path):
    assert run("a", "red", "-o", tmp_path / "p.png").exit_code == 0
    assert {"p-1.png", "p-2.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("place", ["x.gif", "x", "none/x.png", "folder.png"])
def test_an_output_is_refused_before_the_bundle_is_opened(monkeypatch, tmp_path, place):
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(Pipeline, "open", lambda *_, **__: pytest.fail("it was opened"))
    done = CliRunner().invoke(program.generate, ["a bundle", "a", "-o", str(tmp_path / place)])
    assert isinstance(done.exception, UnsupportedError if "." not in place or "gif" in place else MachineError)
    assert place.partition("/")[0] in str(done.exception)
    (tmp_path / "file").write_text("")
    arguments = ["a bundle", "a", "-o", tmp_path / "x.png", "--previews", tmp_path / "file/x"]
    done = CliRunner().invoke(program.generate, [str(argument) for argument in arguments])
    assert isinstance(done.exception, MachineError)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


def test_each_picture_is_written_before_the_next_are_begun(run, monkeypatch, tmp_path):
    made, generate = [], Pipeline.generate

    def watched(self, prompts, **options):
        made.append((prompts, options["seed"], sorted(path.name for path in tmp_path.glob("*.png"))))
        if len(made) == 3:
            raise UnsupportedError("the decoder returned NaN")
        return generate(self, prompts, **options)

    monkeypatch.setattr(Pipeline, "generate", watched)
    done = run("a", "red", "the sea", "a sea", "the red sea", "-o", tmp_path / "p.png", "--seed", 3)
    assert isinstance(done.exception, UnsupportedError)
    names = [f"p-{index}.png" for index in range(1, 5)]
    assert made == [(["a", "red"], [3, 4], []), (["the sea", "a sea"], [5, 6], names[:2]), (["the red sea"], [7], names)]
    assert done.stdout.splitlines() == [str(tmp_path / name) for name in names]


def test_batches_change_no_picture(run, pipeline, tmp_path):
    noise = np.random.default_rng(2).standard_normal((2, 3, 4, 4, 4), np.float32)
    np.save(tmp_path / "noise.npy", noise)
    for options, wish in ((("--seed", 3), {"seed": 3}), (("--noise", tmp_path / "noise.npy"), {"noise": noise})):
        assert run("a", "red", "the sea", "-o", tmp_path / "p.png", *options).exit_code == 0
        for index, same in enumerate(pipeline.generate(["a", "red", "the sea"], **wish), 1):
            np.testing.assert_array_equal(pixels(tmp_path / f"p-{index}.png"), np.asarray(same))
    done = run("a", "red", "-o", tmp_path / "p.png", "--noise", tmp_path / "noise.npy")
    assert "noise is that of 3 pictures, and 2 are asked for" in str(done.exception)


@pytest.fixture
def run_with_encoder(with_encoder, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def opened(*_, devices):
        assert devices == 1
        yield with_encoder

    monkeypatch.setattr(Pipeline, "open", opened)
    return lambda *arguments: CliRunner().invoke(program.generate, [str(with_encoder.bundle.folder), *map(str, arguments)])


def pixels(path):
    with Image.open(path) as read:
        return np.asarray(read)


def test_an_image_a_mask_and_noise_come_from_files_and_the_picture_is_made_again(run_with_encoder, tmp_path):
    image().save(tmp_path / "in.png")
    mask().save(tmp_path / "mask.png")
    noise = np.random.default_rng(2).standard_normal((2, 1, 4, 4, 4), np.float32)
    np.save(tmp_path / "noise.npy", noise)
    files = ("--image", tmp_path / "in.png", "--mask", tmp_path / "mask.png", "--noise", tmp_path / "noise.npy")
    out, second = tmp_path / "out.png", tmp_path / "second.png"
    done = run_with_encoder("a red square", *files, "--strength", 0.6, "-o", out)
    assert done.exit_code == 0, done.output
    done = run_with_encoder("--from", out, *files, "-o", second)
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(pixels(out), pixels(second))
    assert out.read_bytes() == second.read_bytes()
    for left_out in range(0, len(files), 2):
        done = run_with_encoder("--from", out, *files[:left_out], *files[left_out + 2 :], "-o", second)
        assert isinstance(done.exception, UnsupportedError), files[left_out]
    other = run_with_encoder("the sea", "--from", out, *files, "-o", second)
    assert other.exit_code == 0
    with Image.open(second) as read:
        assert (read.text["prompt"], read.text["strength"]) == ("the sea", "0.6")


def test_from_alone_makes_the_same_file(run_with_encoder, tmp_path):
    out, second = tmp_path / "out.png", tmp_path / "second.png"
    assert run_with_encoder("a", "--seed", 9, "--height", 64, "--width", 32, "-o", out).exit_code == 0
    done = run_with_encoder("--from", out, "-o", second)
    assert (done.exit_code, done.output) == (0, f"{second}\n")
    assert out.read_bytes() == second.read_bytes()
    assert "note: picture 1 of 2 made at once" in (
        run_with_encoder("a", "red", "-o", out).output + run_with_encoder("--from", tmp_path / "out-1.png", "-o", second).output
    )


def test_previews_are_written_step_by_step(run_with_encoder, tmp_path):
    image().save(tmp_path / "in.png")
    arguments = ("a", "red", "--image", tmp_path / "in.png", "--strength", 1, "-o", tmp_path / "out.png")
    done = run_with_encoder(*arguments, "--previews", tmp_path / "seen" / "here")
    assert done.exit_code == 0, done.output
    names = [path.name for path in sorted((tmp_path / "seen" / "here").iterdir())]
    assert names == ["step_01_0.png", "step_01_1.png", "step_02_0.png", "step_02_1.png"]
    shown = {pixels(tmp_path / "seen" / "here" / name).tobytes() for name in names}
    assert len(shown) == 4
    assert pixels(tmp_path / "seen" / "here" / names[0]).shape == (32, 32, 3)


def test_a_sampler_without_previews_says_so(run_with_encoder, tmp_path):
    done = run_with_encoder("a", "-o", tmp_path / "out.png", "--previews", tmp_path / "seen")
    assert done.exit_code == 0
    assert "note: this sampler does not say" in done.output
    assert not list((tmp_path / "seen").iterdir())


def test_nothing_to_draw_is_wrong_usage(run_with_encoder, tmp_path):
    done = run_with_encoder()
    assert done.exit_code == 2
    assert "PROMPTS" in done.output
    for option in ("--image", "--mask", "--noise", "--from"):
        done = run_with_encoder("a", option, tmp_path / "absent")
        assert done.exit_code == 2
        assert "does not exist" in done.output


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "engines", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_an_error_is_a_sentence_and_a_status(tmp_path):
    done = command(tmp_path, "a prompt")
    assert done.returncode == 6
    assert done.stderr.startswith("error: ")
    assert "manifest.json is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_there_and_bad_usage_is_2():
    assert "--guidance-scale" in command("--help").stdout
    assert command().returncode == 2


def test_evaluations_are_told_where_they_are_not_known_beforehand(run, tmp_path):
    done = run("a", "red", "the sea", "-o", tmp_path / "p.png", "--sampler", "adaptive:relative=1,absolute=1")
    assert done.exit_code == 0, done.output
    counts = re.search(r"evaluations: (\d+), (\d+), (\d+); median (\d+), most (\d+)\n", done.stderr)
    each = sorted(int(count) for count in counts.groups()[:3])
    assert [int(count) for count in counts.groups()[3:]] == [each[1], each[2]]
    assert "evaluations:" not in done.stdout


@pytest.mark.parametrize("wish", ["adaptive:relative=0", "adaptive:absolute=-1", "adaptiv", "ode:pear=x"])
def test_a_sampler_that_cannot_be_had(run, wish):
    from engines.errors import UnsupportedError

    done = run("a", "--sampler", wish)
    assert isinstance(done.exception, UnsupportedError)
    assert done.exception.exit_code == 3


def test_a_picture_of_such_a_sampler_is_made_again_from_its_text(run, tmp_path):
    first, second, third = (tmp_path / f"{name}.png" for name in "abc")
    assert run("a red square", "-o", first, "--sampler", "ode:relative=0.1", "--seed", 4).exit_code == 0
    assert run("--from", first, "-o", second).exit_code == 0
    assert run("--from", first, "-o", third, "--steps", 2).exit_code == 0  # an option takes the place of what the text says
    with Image.open(first) as one, Image.open(second) as other, Image.open(third) as table:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        assert other.text["sampler"] == "ode:relative=0.1"
        assert (table.text["steps"], "sampler" in table.text) == ("2", False)
