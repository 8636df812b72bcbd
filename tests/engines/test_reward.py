"""Rewards: each picture by its own prompt, the best of several, on an engine without torch; and what a damaged folder says."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from engines import __main__ as program
from engines.errors import BundleError, UnsupportedError
from engines.pipeline import Pipeline
from engines.reward import MANIFEST, Reward
from tests.engines import judge, small
from tests.engines.test_real_engines import graphs

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("rewards") / "bright"
    judge.make(made)
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small.make(tmp_path_factory.mktemp("bundles") / "small", graphs=graphs())


def grey(level, size=(8, 8)):
    return Image.new("RGB", size, (level, level, level))


def test_each_picture_is_held_to_its_own_prompt(folder):
    pictures, prompts = [grey(0), grey(51), grey(255, (12, 8))], ["a", "a red square", "sea sea sea"]
    with Reward.open(folder) as reward:
        found = reward.scores(pictures, prompts)
        assert reward.engine.startswith("onnxruntime ")
    ids = [[1, 4, 2, 0, 0, 0], [1, 4, 5, 7, 2, 0], [1, 11, 11, 11, 2, 0]]
    np.testing.assert_allclose(found, np.array([0, 0.2, 1]) * np.mean(ids, axis=1), rtol=1e-5)


def test_the_best_says_by_whom_and_how_it_was_chosen(folder):
    with Reward.open(folder, "onnxruntime") as reward:
        best = reward.best([grey(0), grey(255), grey(51)], "a")
    assert best.getpixel((0, 0)) == (255, 255, 255)
    assert {name: best.info[name] for name in ("best_of", "reward")} == {"best_of": "3", "reward": "bright"}
    assert float(best.info["reward_score"]) == pytest.approx(7 / 6, abs=1e-5)
    assert float(best.info["reward_mean"]) == pytest.approx(1.2 * 7 / 18, abs=1e-5)


def test_generate_keeps_the_best_of_each_prompts_pictures(folder, bundle, tmp_path):
    out = tmp_path / "p.png"
    words = [str(bundle.folder), "a red square", "sea", "-o", str(out), "--seed", "3", "--images-per-prompt", "2"]
    done = CliRunner().invoke(program.generate, [*words, "--best-of", "3", "--reward", str(folder)])
    assert done.exit_code == 0, done.output
    written = [tmp_path / f"p-{number}.png" for number in range(1, 5)]
    assert done.stdout.splitlines() == [str(path) for path in written]
    with Pipeline.open(bundle.folder) as pipeline, Reward.open(folder) as reward:
        told = done.stderr.splitlines()
        for number, (path, prompt) in enumerate(zip(written, ["a red square"] * 2 + ["sea"] * 2, strict=True)):
            drawn = [pipeline.generate(prompt, seed=3 + 3 * number + each)[0] for each in range(3)]
            scores = reward.scores(drawn, [prompt] * 3)
            assert np.ptp(scores) > 1e-3  # else any would do
            with Image.open(path) as read:
                np.testing.assert_allclose(np.asarray(read, float), np.asarray(drawn[int(scores.argmax())], float), atol=1)
                assert read.text["seed"] == str(3 + 3 * number + int(scores.argmax()))
                assert float(read.text["reward_score"]) == pytest.approx(scores.max(), abs=1e-2)
            assert told[number].startswith(f"best of 3 by bright: seed {3 + 3 * number + int(scores.argmax())}, ")


@pytest.mark.parametrize("words", [["--best-of", "3"], ["--reward", "x"], ["--best-of", "2", "--reward", "x", "--previews", "."]])
def test_half_a_wish_is_wrong_usage(words, bundle):
    done = CliRunner().invoke(program.generate, [str(bundle.folder), "a", *words])
    assert done.exit_code == 2
    assert "--best-of N and --reward FOLDER go together" in done.output


def test_a_damaged_folder_says_what_is_wrong(folder, tmp_path):
    with pytest.raises(UnsupportedError, match="no engine of tensorrt; it has onnxruntime"), Reward.open(folder, "tensorrt"):
        pass
    with pytest.raises(BundleError, match=r"is no reward.s folder: it has no reward\.json\. Make one"), Reward.open(tmp_path):
        pass
    judge.make(tmp_path / "other")
    told = json.loads((tmp_path / "other" / MANIFEST).read_text())
    (tmp_path / "other" / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json is damaged"), Reward.open(tmp_path / "other"):
        pass
    for change in ({"files": {}}, {"newer": 1}, {"image": told["image"] | {"shape": ["batch", "height", 4, 3]}}):
        (tmp_path / "other" / MANIFEST).write_text(json.dumps(told | change))
        with pytest.raises(BundleError, match=r"reward\.json is not valid"), Reward.open(tmp_path / "other"):
            pass
