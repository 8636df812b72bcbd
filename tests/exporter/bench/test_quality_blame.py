"""A floor that is missed is blamed on the pass after which it is: the recipe up to each pass is built, drawn and scored."""

from types import SimpleNamespace

import numpy as np
import pytest

from engines.errors import DivergenceError, MachineError, RecipeError
from exporter.bench import quality_blame
from exporter.bench.quality_blame import PassRow, blame, prefixes, table
from exporter.bench.quality_gate import MissedFloor, QualityMissed
from exporter.recipe.quality import QualityFloor
from exporter.recipe.schema import Recipe

TEXT = """\
model: {source: x}
sampler: {steps: [2]}
shapes: {height: [32, 32, 64], width: [32, 32, 64]}
components:
  unet:
    passes: [prune: {preset: bk-sdm-small}, distill: {data: x, steps: 1}, quantize: {format: int8}]
  vae_decoder: {passes: [swap: {source: y}]}
  text_encoder: {precision: fp16}
checks: {quality: {psnr: {at_least: 9, prompts: prompts.txt}}, faster_than: {against: diffusers}}
"""
PASSES = {
    "unet": {"prune": ("network", "prune 0.3"), "distill": ("training", "distill 1"), "quantize": ("graph", "quantize: int8")},
    "vae_decoder": {"swap": ("swap", "swap: y")},
    "text_encoder": {},
}
NAMES = ["no pass", "unet: prune 0.3, distill 1", "unet: quantize: int8", "vae_decoder: swap: y"]


class Share:
    label, higher_is_better, compares = "prompts right", True, False

    def of(self, images, prompts, reference):
        assert (prompts, reference) == (("a", "b"), None)
        return images


class Error(Share):
    label, higher_is_better = "error", False


@pytest.fixture
def recipe():
    return Recipe.parse(TEXT, "mine")


@pytest.fixture
def passes():
    return {
        part: {name: SimpleNamespace(kind=kind, summary=told) for name, (kind, told) in steps.items()}
        for part, steps in PASSES.items()
    }


def rights(number, total=200):
    return np.array([1.0] * number + [0.0] * (total - number))


def floor(own, at_least=0.9, score=Share):
    return MissedFloor(score(), QualityFloor(at_least=at_least, prompts="p", seed=3), ("a", "b"), own, None, None)


def test_prefixes_have_one_pass_more_each_and_no_gate(recipe, passes):
    found = list(prefixes(recipe, passes))
    assert [name for name, _ in found] == NAMES
    assert [[len(each.components[part].passes) for part in PASSES] for _, each in found] == [
        [0, 0, 0],
        [2, 0, 0],
        [3, 0, 0],
        [3, 1, 0],
    ]
    assert all((each.checks.quality, each.checks.faster_than) == ({}, None) for _, each in found)
    assert all(each.components["text_encoder"].precision == "fp16" for _, each in found)


def test_the_pass_that_lost_most_is_named(recipe, passes, monkeypatch):
    worth, built = {(0, 0): 190, (2, 0): 188, (3, 0): 120}, []

    def lay_out(shortened, folder):
        built.append(tuple(len(shortened.components[part].passes) for part in ("unet", "vae_decoder")))
        folder.mkdir()

    monkeypatch.setattr(quality_blame, "pictures", lambda _place, _texts, seed: rights(worth[built[-1]] + 3 - seed))
    told = blame(QualityMissed("", [floor(rights(119))]), recipe, passes, lay_out).splitlines()
    assert built == list(worth)
    assert told[0] == "prompts right after each pass, of the same prompts and noise:"
    assert [line[2:].partition("  ")[0] for line in told[1:-1]] == NAMES
    assert told[1].split()[-1] == "0.95"
    assert "  0.6  -0.34 (-0.4" in told[3]
    assert told[-1] == "unet: quantize: int8 lost most of it."


def test_what_cannot_be_built_without_what_follows_is_blamed_with_it(recipe, passes, monkeypatch):
    def lay_out(shortened, _folder):
        if len(shortened.components["unet"].passes) == 2:
            raise RecipeError("sampler: no\nand more")
        if not shortened.components["unet"].passes:
            raise DivergenceError("the loss\nis none")

    monkeypatch.setattr(quality_blame, "pictures", lambda *_: rights(180))
    told = blame(QualityMissed("", [floor(rights(10))]), recipe, passes, lay_out).splitlines()
    assert told[1].endswith("cannot be built without what follows: the loss")
    assert told[2].endswith("cannot be built without what follows: sampler: no")
    assert told[-1] == "vae_decoder: swap: y lost most of it."


def test_a_full_disk_is_no_ones_fault(recipe, passes):
    def lay_out(*_):
        raise MachineError("full")

    with pytest.raises(MachineError, match="full"):
        blame(QualityMissed("", [floor(rights(10))]), recipe, passes, lay_out)


def test_nothing_is_built_where_nobody_can_tell(recipe, passes):
    assert blame(QualityMissed("too few", []), recipe, passes, None) == ""


def test_what_is_missed_without_a_pass_is_no_passes_fault():
    rows = [PassRow("no pass", rights(100)), PassRow("unet: a", None, "w"), PassRow("unet: b", rights(40))]
    assert table(floor(rights(40)), rows).splitlines()[-1] == (
        "It is missed without any pass: look at the sampler, the precision and the targets. "
        "Of the passes, unet: a and unet: b lost most."
    )
    assert table(floor(rights(100)), rows[:1]).endswith("the sampler, the precision and the targets.")


def test_a_score_that_is_better_when_lower_rises_where_it_is_lost():
    values = np.linspace(0.1, 0.2, 50)
    rows = [PassRow("no pass", values), PassRow("unet: a", values + 0.5), PassRow("unet: b", values + 0.4)]
    told = table(floor(values + 0.4, 0.3, Error), rows).splitlines()
    assert told[2].endswith("0.65  +0.5 (+0.5 to +0.5)")
    assert told[-1] == "unet: a lost most of it."


def test_losses_that_may_be_chance_blame_nobody():
    rows = [PassRow("no pass", rights(150)), PassRow("unet: a", np.roll(rights(148), 30))]
    assert rows[1].numbers.mean() < rows[0].numbers.mean(), "two fewer are right, and which of them differ is chance"
    assert table(floor(rights(148), 0.7501), rows).endswith("No pass lost it alone, as far as so many prompts can tell.")
