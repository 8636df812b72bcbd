"""An instruction names what is changed, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from tools.demo.edits import edit, evaluation_edits
from tools.demo.scenes import BACKGROUNDS, COLOURS, HELD_OUT, SHAPES, training_scene

EDITS = [edit(training_scene(seed), np.random.default_rng(seed)) for seed in range(400)]


def test_every_kind_occurs_of_one_object_and_of_two():
    kinds = {(each.changed, len(each.before.things)) for each in EDITS}
    assert kinds == {(kind, count) for kind in ("colour", "shape", "background") for count in (1, 2)}


@pytest.mark.parametrize("each", EDITS[:60], ids=lambda each: each.text)
def test_what_is_said_is_all_that_changes(each):
    words, changed = each.text.split(), each.changed
    assert (each.before.background != each.after.background) == (changed == "background")
    if changed == "background":
        assert each.text == f"make the background {each.after.background}"
        assert each.before.things == each.after.things
        return
    assert words[:2] == ["make", "it"]
    for before, after in zip(each.before.things, each.after.things, strict=True):
        assert getattr(before, changed) != getattr(after, changed) == words[-1]
        assert (words[-2] == "a") == (changed == "shape")
        assert replace(after, **{changed: getattr(before, changed)}) == before
    assert each.before.relation == each.after.relation


def test_no_pair_that_training_holds_out_is_made():
    made = {(thing.colour, thing.shape) for each in EDITS for thing in each.after.things}
    assert not made & HELD_OUT
    assert len(made) > 35
    assert {colour for colour, _ in made} == {*COLOURS}
    assert {shape for _, shape in made} == {*SHAPES}
    assert {each.after.background for each in EDITS} == {*BACKGROUNDS}


def test_evaluation_is_fixed_and_half_of_each_kind():
    first, again = evaluation_edits(5), evaluation_edits(5)
    assert first == again
    assert [len(each.before.things) for each in first] == [1] * 5 + [2] * 5
