"""A sweep's file: what it says, and every way in which it may be wrong, with its line."""

import pytest

from engines.errors import RecipeError
from exporter.sweep.spec import load

RECIPE = "model: {source: x}\nsampler: {steps: [4]}\nshapes: {height: [32, 32, 64], width: [32, 32, 64]}\n"
SWEEP = """\
recipe: base.yaml
axes:
  sampler.scheduler: [EulerDiscreteScheduler, DDIMScheduler]
  network:
    whole: {}
    bf16: {components.unet.precision: bf16}
  run.steps: [4, 2]
constraints: [latency < 2 s, memory <= 8 GB, psnr > 20 dB]
measures:
  prompts: [a red circle, a blue square]
  scores: [psnr, ssim]
"""


@pytest.fixture
def read(tmp_path):
    (tmp_path / "base.yaml").write_text(RECIPE)

    def call(text):
        (tmp_path / "sweep.yaml").write_text(text)
        return load(tmp_path / "sweep.yaml")

    return call


def test_it_is_read(read):
    found = read(SWEEP)
    assert list(found.axes) == ["sampler.scheduler", "network", "run.steps"]
    assert found.axes["network"]["bf16"].settings == {"components.unet.precision": "bf16"}
    assert found.axes["run.steps"]["2"].settings == {"run.steps": 2}
    assert found.grids == ({axis: tuple(levels) for axis, levels in found.axes.items()},)
    assert [(each.quantity, each.bound) for each in found.constraints] == [("latency", 2.0), ("memory", 8e9), ("psnr", 20.0)]
    assert found.prompts == ("a red circle", "a blue square")
    assert found.quality == "psnr"
    assert found.quantities["ssim"].higher_is_better


def test_a_price_makes_cost_a_column(read):
    found = read(SWEEP.replace("latency < 2 s", "cost < 0.05") + "price: 1.20\n")
    assert (found.price, found.constraints[0].bound) == (1.2, 0.05)
    assert "cost" not in read(SWEEP).quantities


def test_points_ask_for_machines(read):
    found = read(SWEEP.replace("bf16: {", "bf16: {resources.gpu: '8.9', ") + "resources: {cpus: 4, memory: 16 GB}\n")
    assert (found.resources.cpus, found.resources.bytes, found.resources.gpu) == (4, 16 * 10**9, None)
    assert found.axes["network"]["bf16"].settings["resources.gpu"] == "8.9"


def test_prompts_of_a_file_and_grids_of_some_axes(read, tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n\n  two \n")
    text = SWEEP.replace("[a red circle, a blue square]", "prompts.txt")
    found = read(f"{text}points:\n  - {{network: [whole, bf16], run.steps: 2}}\n  - {{sampler.scheduler: DDIMScheduler}}\n")
    assert found.prompts == ("one", "two")
    assert found.grids == ({"network": ("whole", "bf16"), "run.steps": ("2",)}, {"sampler.scheduler": ("DDIMScheduler",)})


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("constraints:", "search: {points: 0}\nconstraints:", ":8  search.points: must be at least 1"),
        (
            "constraints:",
            "search: {points: 3}\npoints: [{run.steps: 2}]\nconstraints:",
            ":8  search: chooses among all combinations",
        ),
        ("sampler.scheduler:", "sampler.schedular:", ":3  axes.sampler.schedular: 'sampler.schedular' is no path of a recipe: "),
        ("sampler.scheduler:", "sampler.schedular:", "did you mean 'scheduler'?"),
        ("components.unet.precision", "components.unet.precison", "did you mean 'precision'?"),
        ("components.unet.precision", "componets.unet.precision", ":6  axes.network.bf16.componets.unet.precision: "),
        ("components.unet.precision:", "components.unet.passes+:", "'components.unet.passes+' puts a list behind another"),
        ("run.steps:", "run.stepz:", "did you mean 'steps'?"),
        ("run.steps:", "resources.gpus:", "did you mean 'gpu'?"),
        ("run.steps:", "resources:", "names none of its fields; there are: cpus, memory, gpu"),
        (
            "constraints:",
            "resources: {gpu: hopper}\nconstraints:",
            ":8  resources.gpu: 'hopper' is no compute capability",
        ),
        (
            "constraints:",
            "resources: {memory: much}\nconstraints:",
            ":8  resources.memory: 'much' is no size",
        ),
        ("constraints:", "resources: {cpus: 0}\nconstraints:", ":8  resources.cpus: must be at least 1"),
        ("constraints:", "set: {resources.cpus: 2}\nconstraints:", "is of a level; the base is changed by paths of a recipe"),
        ("run.steps:", "run:", "names none of its fields"),
        ("run.steps:", "'a b':", "'a b' is no path of a recipe; write such as sampler.steps"),
        ("[4, 2]", "[]", ":7  axes.run.steps: has no levels, so the grid is empty"),
        ("[4, 2]", "[4, 4]", "axes.run.steps: has a value twice; keep one"),
        ("latency < 2 s", "latncy < 2 s", ":8  constraints[0]: 'latncy < 2 s': 'latncy' is not measured; did you mean 'lat"),
        ("latency < 2 s", "latency of 2 s", "is no constraint; write such as 'latency < 2 s'"),
        ("latency < 2 s", "latency < 2 GB", "latency has no unit 'GB'; there are: s, ms, min, h"),
        ("[psnr, ssim]", "[psrn]", ":11  measures.scores[0]: unknown score 'psrn'; did you mean 'psnr'?"),
        ("[psnr, ssim]", "[psnr, psnr]", "'psnr' is measured already; keep one"),
        ("[psnr, ssim]", "[psnr: {x: 1}]", "psnr: it takes no options"),
        ("[psnr, ssim]", "[./none.py]", "none.py is not a file"),
        ("[psnr, ssim]", "[{psnr: {}, ssim: {}}]", "has 2 names; write '- score'"),
        ("[a red circle, a blue square]", "none.txt", ":10  measures.prompts: 'none.txt' cannot be read"),
        ("[a red circle, a blue square]", "[]", "measures.prompts: has no prompt; give at least one"),
        ("recipe: base.yaml", "recipe: bse.yaml", ":1  recipe: "),
        ("measures:", "mesures:", "unknown field; did you mean 'measures'?"),
        ("constraints:", "price: 0\nconstraints:", ":8  price: must be more than 0"),
        ("latency < 2 s", "cost < 2", "'cost' is not measured"),
        ("constraints:", "points: []\nconstraints:", "points: is empty, so there is nothing to build"),
        ("constraints:", "points: [{netwrk: whole}]\nconstraints:", "unknown axis; did you mean 'network'?"),
        ("constraints:", "points: [{network: [whol]}]\nconstraints:", "unknown level 'whol'; did you mean 'whole'?"),
        ("constraints:", "points: [{network: []}]\nconstraints:", "names no level, so this grid is empty"),
        ("axes:", "set: {sampler.stps: [4]}\naxes:", ":2  set.sampler.stps: 'sampler.stps' is no path of a recipe"),
        ("axes:", "set: {run.steps: 4}\naxes:", "'run.steps' is of a level; the base is changed by paths of a recipe"),
        ("axes:", "axes: &a", "the anchor &a"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(read, old, new, told):
    assert old in SWEEP
    with pytest.raises(RecipeError) as error:
        read(SWEEP.replace(old, new, 1))
    assert told in str(error.value)


def test_every_problem_is_told_at_once(read):
    with pytest.raises(RecipeError) as error:
        read(SWEEP.replace("network:", "netw.ork:").replace("sampler.s", "sampler.z").replace("8 GB", "8 s").replace("ssim", "x"))
    assert len(error.value.problems) == 3


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        load(tmp_path / "none.yaml")
