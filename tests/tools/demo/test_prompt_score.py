"""The demo's score, found by its path."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exporter import scores
from tools.demo import captions, scenes

ROOT = Path(__file__).parents[3]


def test_it_tells_pictures_that_show_their_prompt():
    drawn, said = [], []
    for seed in range(20):
        dice = np.random.default_rng(seed)
        scene = scenes.sample_scene(dice, 1 + seed % 2)
        drawn.append(scenes.draw(scene))
        said.append(captions.caption(scene, dice))
    images = np.stack(drawn)
    score = scores.load("../tools/demo/prompt_score.py", {}, ROOT / "recipes")
    assert np.mean(score.of(images, said, None)) > 0.9
    assert np.mean(score.of(images, said[1:] + said[:1], None)) < 0.1
    assert (score.label, score.compares) == ("prompts right", False)
    with pytest.raises(ValueError, match="not a caption"):
        score.of(images[:1], ["an astronaut"], None)


def test_it_is_found_from_any_folder(tmp_path):
    place = f"Path({str(ROOT / 'tools/demo')!r})"
    code = "from pathlib import Path\nfrom exporter import scores\n"
    code += f"print(scores.load('prompt_score.py', {{}}, {place}).label)"
    paths = f"import sys\nsys.path[:] = [each for each in sys.path if each]\nsys.path.append({str(ROOT)!r})\n"
    done = subprocess.run([sys.executable, "-c", paths + code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "prompts right\n"
