"""A picture is right if it does what was asked, and only then."""

from dataclasses import replace

import numpy as np
import pytest

from tools.demo.conditioned import counted, edge_cases, edit_cases, verdict
from tools.demo.scenes import BACKGROUNDS, COLOURS, draw


def other(options, present):
    return next(each for each in options if each != present)


@pytest.mark.parametrize("cases", [edge_cases(12), edit_cases(12)], ids=["edges", "edits"])
def test_the_picture_that_is_wanted_is_right(cases):
    found = counted([verdict(draw(case.wanted), case) for case in cases])
    assert set(found.values()) == {24}
    assert [case.group for case in cases] == ["single"] * 12 + ["two"] * 12


def test_edges_say_where_and_words_which_colour():
    for case in edge_cases(8):
        first = case.wanted.things[0]
        repainted = replace(first, colour=other(COLOURS, first.colour))
        found = verdict(draw(replace(case.wanted, things=(repainted, *case.wanted.things[1:]))), case)
        assert found == {"stated": False, "placed": True, "right": False}
    for case in edge_cases(8)[:8]:
        (thing,) = case.wanted.things
        moved = replace(thing, x=thing.x + (6 if thing.x < 32 else -6))
        found = verdict(draw(replace(case.wanted, things=(moved,))), case)
        assert found == {"stated": True, "placed": False, "right": False}


def test_an_edit_is_done_and_all_else_kept():
    for case in edit_cases(10):
        assert verdict(draw(case.edit.before), case) == {"done": False, "kept": True, "right": False}
        background = case.edit.changed == "background"
        ground = other(BACKGROUNDS, case.wanted.background) if not background else case.wanted.background
        things = case.wanted.things
        if background:
            things = (replace(things[0], colour=other(COLOURS, things[0].colour)), *things[1:])
        found = verdict(draw(replace(case.wanted, background=ground, things=things)), case)
        assert found == {"done": True, "kept": False, "right": False}


def test_what_is_no_scene_is_neither():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for case in (edge_cases(1)[0], edit_cases(1)[0]):
        assert not any(verdict(noise, case).values())
