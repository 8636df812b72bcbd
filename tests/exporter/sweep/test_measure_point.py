"""Measuring a bundle of small real graphs: pictures of their own seeds, scores of the base's, the work of a picture."""

import numpy as np
import pytest
from PIL import Image

from engines.errors import RecipeError, UnsupportedError
from engines.parallel.picard import Picard
from engines.pipeline import Pipeline
from engines.sampler_ops import Eval
from engines.samplers.table import Table
from exporter.bench import energy
from exporter.sweep.measure_point import MeasureTask, _calls, measure_point
from exporter.sweep.spec import Measures, RunOptions
from tests.engines import small
from tests.engines.test_real_engines import graphs

pytest.importorskip("onnxruntime")
PROMPTS = tuple(f"a red square {number}" for number in range(9))
SIZES = {"text_encoder": 10, "unet": 1000, "vae_decoder": 100}
SCORE = """
from typing import ClassVar
from engines.strict import Frozen
__all__ = ["Reddest"]
class Reddest(Frozen):
    label: ClassVar[str] = "red"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[bool] = False
    factor: float = 1.0
    def of(self, images, prompts, reference):
        assert images.dtype == "uint8" and len(prompts) == len(images) and reference is None
        return self.factor * images[..., 0].mean((1, 2))
    def notes(self, count):
        return [f"{count} were looked at."]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    small.make(folder / "base", graphs=graphs())
    (folder / "pictures").mkdir()
    (folder / "red.py").write_text(SCORE)
    return folder


def task(place, run=None, **changes):
    scores = ({"psnr": {}}, {"ssim": {}}, {"red.py": {"factor": 2.0}})
    given = {
        "bundle": place / "base",
        "base": place / "base",
        "run": run or RunOptions(),
        "multiply_adds": SIZES,
        "measures": Measures(prompts=PROMPTS, scores=scores, seed=5, shown=2, rounds=2),
        "prompts": PROMPTS,
        "root": place,
        "pictures": place / "pictures",
        "name": "point",
        "is_base": run is None,
    }
    return MeasureTask(**given | changes)


@pytest.fixture(scope="module")
def base(place):
    return measure_point(task(place, name="base"))


def test_the_base_is_measured_and_its_pictures_are_kept(place, base):
    with Pipeline.open(place / "base") as pipeline:
        wanted = [np.asarray(pipeline.generate(prompt, seed=5 + number)[0]) for number, prompt in enumerate(PROMPTS)]
    kept = [np.asarray(Image.open(place / "pictures" / "reference" / f"{number}.png")) for number in range(9)]
    np.testing.assert_array_equal(kept, wanted)
    assert set(base.scores) == {"red"}  # with itself it is not compared
    np.testing.assert_allclose(base.scores["red"], 2 * np.mean(wanted, axis=(1, 2))[:, 0], rtol=1e-6)
    assert len(base.seconds) == 2
    assert base.base_seconds == base.seconds
    assert base.memory > 20e6
    assert base.pictures == ("base-0.webp", "base-1.webp")
    np.testing.assert_array_equal(np.asarray(Image.open(place / "pictures" / "base-1.webp").convert("RGB")), wanted[1])


def test_energy_is_a_pictures_share_of_what_drawing_took(place, monkeypatch):
    counters = iter(({place: 1_000_000}, {place: 19_000_000}))
    monkeypatch.setattr(energy, "read", lambda: next(counters))
    assert measure_point(task(place, name="base")).energy == 2.0


def test_the_work_of_a_picture_is_that_of_its_calls(base):
    assert (base.evaluations, base.multiply_adds) == (2, 10 + 2 * 1000 + 100)


def test_cached_and_unguided_calls_are_told_from_whole_ones(place, monkeypatch):
    with Pipeline.open(place / "base") as pipeline:
        pictures, bundle = pipeline.generate("a red square"), pipeline.bundle
    assert pictures[0].info["evaluations"] == "2"
    table = Table.load(bundle.path(bundle.manifest.compiled(2, 32, 32).file))
    changes = iter(({"guided": 0.0}, {"shallow": True}))
    ops = tuple(op.model_copy(update=next(changes)) if isinstance(op, Eval) else op for op in table.ops)
    monkeypatch.setattr(Table, "load", lambda _: table.model_copy(update={"ops": ops}))
    assert _calls(bundle, RunOptions(), pictures) == {"denoiser": (1.0, 0.5), "shallow": (1.0, 1.0)}


def test_a_branch_that_is_left_out_is_not_counted(tmp_path):
    bundle, pictures = small.make(tmp_path / "perturbed", **small.perturbed()), []
    third = 1 / 3
    for run, share in (
        (RunOptions(), 1.0),
        (RunOptions(pag_scale=0.0), 2 * third),
        (RunOptions(guidance_scale=1.0), 2 * third),
        (RunOptions(guidance_scale=1.0, pag_scale=0.0), third),
    ):
        assert _calls(bundle, run, pictures) == {"denoiser": (2.0, pytest.approx(2 * share))}
    with pytest.raises(UnsupportedError, match=r"build the bundle with sampler\.guidance\.pag"):
        _calls(small.make(tmp_path / "plain"), RunOptions(pag_scale=1.0), pictures)


@pytest.mark.usefixtures("base")
def test_a_point_is_scored_against_the_base_and_timed_beside_it(place):
    found = measure_point(task(place, RunOptions(guidance_scale=5.0)))
    assert set(found.scores) == {"psnr", "ssim", "red"}
    assert found.notes == ("9 were looked at.",)
    assert len(found.scores["psnr"]) == 9
    assert 0 < min(found.scores["psnr"]) <= max(found.scores["psnr"]) < 100
    assert (len(found.seconds), len(found.base_seconds)) == (2, 2)
    assert found.base_seconds != found.seconds
    same = measure_point(task(place, RunOptions(), is_base=False))
    assert set(same.scores["psnr"]) == {200.0}


@pytest.mark.usefixtures("base")
def test_pictures_of_another_size_are_not_compared(place):
    found = measure_point(task(place, RunOptions(height=48)))
    assert set(found.scores) == {"red"}


@pytest.mark.usefixtures("base")
def test_samplers_that_choose_tell_how_often_they_call(place):
    found = measure_point(task(place, RunOptions(parallel=Picard(window=2, tolerance=0.0))))
    assert found.evaluations >= 2
    assert found.multiply_adds == pytest.approx(10 + found.evaluations * 1000 + 100)
    assert measure_point(task(place, RunOptions(guidance_scale=4.0), multiply_adds={})).multiply_adds is None


@pytest.mark.usefixtures("base")
def test_what_cannot_be_run_says_so(place):
    with pytest.raises(UnsupportedError, match="no sampler of 3"):
        measure_point(task(place, RunOptions(steps=3)))
    with pytest.raises(RecipeError, match=r"red\.py\.factr: unknown field; did you mean 'factor'\?"):
        measure_point(task(place, measures=Measures(prompts=PROMPTS, scores=({"red.py": {"factr": 2.0}},))))
