"""The gate for quality: the interval decides, over pictures of a bundle of small real graphs."""

import numpy as np
import pytest
from PIL import Image

from engines.errors import ParityError, RecipeError
from engines.pipeline import Pipeline
from exporter.bench import quality_gate
from exporter.bench.quality_gate import QualityMissed, decide, hold
from exporter.recipe.quality import QualityFloor
from exporter.recipe.schema import Recipe
from exporter.scores import MetricScore
from tests.engines import small
from tests.engines.test_real_engines import graphs
from tests.exporter.recipe.test_quality import TEXT

pytest.importorskip("onnxruntime")
SCORE = """
from typing import ClassVar
from engines.strict import Frozen
__all__ = ["Brightness"]
class Brightness(Frozen):
    label: ClassVar[str] = "brightness"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[bool] = False
    def of(self, images, prompts, reference):
        return images.mean((1, 2, 3))
    def notes(self, count):
        return [f"{count} were looked at."]
"""


class Share:
    label, higher_is_better, compares = "prompts right", True, False


def floor(at_least, **more):
    return QualityFloor(at_least=at_least, prompts="prompts.txt", **more)


def rights(right, total):
    return np.array([1.0] * right + [0.0] * (total - right))


def test_a_share_of_the_source_is_decided_pair_by_pair():
    source = rights(930, 1000)
    passed, told = decide(rights(940, 1000), source, floor("0.98 of source"), Share)
    assert passed
    assert told == "quality: prompts right 0.94, the source 0.93, over 1000 prompts; at least 0.98 of source is asked"
    passed, told = decide(rights(800, 1000), source, floor("0.98 of source"), Share)
    assert not passed
    assert told.startswith("too low a quality: prompts right 0.8, the source 0.93, over 1000 prompts;")


def test_too_few_are_told_with_how_many_more_would_do():
    own = rights(56, 60)
    source = np.roll(own, 10)  # as good, and wrong elsewhere
    passed, told = decide(own, source, floor("0.98 of source"), Share)
    assert not passed
    assert told.startswith("too few prompts to tell: ")
    more = int(told.split("; ")[-1].split()[0])
    times = 2 + more // 60
    assert decide(np.tile(own, times), np.tile(source, times), floor("0.98 of source"), Share)[0]
    near = decide(rights(50, 100), None, floor(0.5), Share)[1]
    assert near.endswith("it lies so near that no number of prompts would decide; ask for less.")


def test_a_score_that_is_better_when_lower_has_a_ceiling():
    score, values = MetricScore("relative_l2"), np.array([0.10, 0.12, 0.11, 0.09])
    assert decide(values, None, floor(0.2), score)[0]
    passed, told = decide(values, None, floor(0.05), score)
    assert not passed
    assert "at most 0.05 is asked" in told


def test_all_right_of_few_prompts_is_not_sure_to_be_all_right():
    assert not decide(rights(10, 10), None, floor(0.98), Share)[0]


@pytest.fixture
def place(tmp_path, monkeypatch):
    small.make(tmp_path / "bundle", graphs=graphs())
    (tmp_path / "bright.py").write_text(SCORE)
    (tmp_path / "prompts.txt").write_text("".join(f"a red square {number}\n" for number in range(10)))

    class Darker:
        """A source whose pictures are the bundle's, half as bright."""

        def __init__(self, bundle, kind, _watch, root):
            assert (kind, root) == ("diffusers", tmp_path)
            self.folder = bundle.folder

        def draw(self, texts, noise, **wishes):
            with Pipeline.open(self.folder) as pipeline:
                found = pipeline.generate(texts, noise=[noise()], steps=wishes["steps"])
            return [Image.fromarray((np.asarray(each) * 0.5).astype(np.uint8)) for each in found]

    monkeypatch.setattr(quality_gate, "Baseline", Darker)
    return tmp_path


def test_pictures_are_drawn_by_both_on_the_same_noise(place):
    (told,) = hold(place / "bundle", {"bright.py": floor("1.9 of source")}, place)
    assert told.startswith("quality: brightness ")
    assert told.endswith("1.9 of source is asked. 10 were looked at.")
    with pytest.raises(ParityError, match=r"too low a quality: brightness .*; at least 2\.2 of source is asked"):
        hold(place / "bundle", {"bright.py": floor("2.2 of source")}, place)
    with pytest.raises(QualityMissed) as raised:
        hold(place / "bundle", {"psnr": floor(90.0), "bright.py": floor("2 of source")}, place)
    missed, *near = raised.value.missed  # twice as bright but for rounding: nobody can tell, so nothing is to blame
    assert not near
    assert (missed.score.label, missed.floor.at_least, len(missed.texts)) == ("PSNR", 90.0, 10)
    drawn = quality_gate.pictures(place / "bundle", missed.texts, 0)
    assert missed.numbers(drawn) == pytest.approx(missed.own)
    assert len(hold(place / "bundle", {"psnr": floor(3.0), "bright.py": floor(1.0, count=4)}, place)) == 2


def test_what_cannot_be_had_is_told_before_the_work(place):
    text = TEXT.replace("FLOOR", "0.9 of source")
    with pytest.raises(RecipeError, match=r"checks\.quality\.psnr: it compares with the source, so there is no share of it"):
        quality_gate.refuse(Recipe.parse(text, "mine", place))
    with pytest.raises(RecipeError, match=r"checks\.quality\.pnsr: unknown score 'pnsr'; did you mean 'psnr'\?"):
        quality_gate.refuse(Recipe.parse(text.replace("psnr", "pnsr"), "mine", place))
    with pytest.raises(RecipeError, match=r"checks\.quality\.psnr: prompts 'none\.txt' cannot be read"):
        quality_gate.refuse(Recipe.parse(TEXT.replace("FLOOR", "9").replace("prompts.txt", "none.txt"), "mine", place))
    quality_gate.refuse(Recipe.parse(TEXT.replace("FLOOR", "9"), "mine", place))
