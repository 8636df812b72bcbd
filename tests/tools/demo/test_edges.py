"""Edges are where colours change, and nowhere else."""

import numpy as np
import pytest

from tools.demo.edges import edges
from tools.demo.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing, draw


def test_both_sides_of_a_step_are_white_and_all_else_black():
    picture = np.zeros((6, 7, 3), np.uint8)
    picture[2:4, 3:5, 1] = 200
    found = edges(picture)
    assert found.shape == picture.shape
    assert found.dtype == np.uint8
    white = np.zeros((6, 7), bool)
    white[1:5, 3:5] = white[2:4, 2:6] = True
    assert (found == white[..., None] * 255).all()


def test_a_shade_too_faint_is_no_edge():
    picture = np.full((4, 4, 3), 100, np.uint8)
    picture[:, 2:] += 31
    assert not edges(picture).any()
    picture[:, 2:] += 1
    assert edges(picture).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_they_tell_a_shape_and_no_colour(shape):
    """Whatever its colours, an object's outline shows: few pixels, within its box and around it."""
    seen = []
    for colour in COLOURS:
        for ground in BACKGROUNDS:
            white = edges(draw(Scene((Thing("large", colour, shape, 32, 32),), ground)))[..., 0] > 0
            rows, columns = np.nonzero(white)
            assert (min(rows.min(), columns.min()), max(rows.max(), columns.max())) == pytest.approx((17, 46), abs=2)
            seen.append(white)
    common = np.logical_and.reduce(seen)
    assert common.sum() > 0.5 * max(each.sum() for each in seen)
