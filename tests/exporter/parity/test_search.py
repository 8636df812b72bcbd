"""Bisecting on graphs of a few lines, whose faults are said and not computed."""

import numpy as np
import pytest

from exporter.parity.layers import Layers
from exporter.parity.search import agreement, first_off, smallest
from tests.exporter.graph.small import model

CHAIN = [f"v{index} = Mul({f'v{index - 1}' if index else 'x'}, one)" for index in range(60)]
NAN, INF = np.float32("nan"), np.float32("inf")


def looking(layers, first, asked):
    """Say of every value whether it depends on `first`; note what was asked for."""

    def measure(names):
        asked.append(list(names))
        return {name: 20.0 if name == first or first in layers.above(name) else 120.0 for name in names}

    return measure


@pytest.mark.parametrize("first", ["v0", "v17", "v42", "v59", "y"])
def test_a_long_chain_is_bisected_in_few_rounds_of_few_values(first):
    layers, asked = Layers(model(*CHAIN, "y = Add(v59, two)")), []
    found = first_off(layers, "y", looking(layers, first, asked), 95)
    assert (found.name, found.hidden) == (first, False)
    assert len(asked) <= 4
    assert max(map(len, asked)) <= 17


def test_what_a_norm_hides_and_a_residual_carries_past_it_is_found():
    layers = Layers(model("a = Mul(x, one)", "b = Relu(a)", "c = Add(b, a)", "y = Mul(c, two)"))
    off = {"a", "c", "y"}  # b is right, although what it is made of is not
    found = first_off(layers, "y", lambda names: {name: 20.0 if name in off else 120.0 for name in names}, 95)
    assert found.name == "a"


def test_a_value_of_which_only_the_shape_is_read_is_no_suspect():
    layers = Layers(model("a = Relu(x)", "s = Shape(a)", "y = Expand(x, s)"))
    assert layers.above("y") == ["x"]
    assert layers.parents("s") == []
    assert layers.parents("s", sizes=True) == ["a"]


def test_the_smallest_part_is_grown_and_then_thinned():
    layers = Layers(model(*CHAIN[:20], "y = Add(v19, two)"))
    inside = smallest(layers, "y", lambda made: 20.0 if {"v14", "v17"} <= {*made} else 120.0, 95)
    assert inside == ["v14", "v15", "v16", "v17", "v18", "v19", "y"]


def test_where_no_part_shows_it_everything_is_named():
    layers = Layers(model(*CHAIN[:5], "y = Add(v4, two)"))
    assert smallest(layers, "y", lambda _made: 120.0, 95) == ["v0", "v1", "v2", "v3", "v4", "y"]


@pytest.mark.parametrize(
    ("got", "want", "good"),
    [
        ([1, -INF], [1, -INF], True),
        ([1, INF], [1, -INF], False),
        ([1, NAN], [1, 2], False),
        ([1, 2, 3], [1, 2], False),
        ([5, 5], [5, 5], True),
        ([5, 6], [5, 5], False),
        ([0, 0], [0, 0], True),
        ([], [], True),
    ],
)
def test_agreement_of_values_inside_a_network(got, want, good):
    assert (agreement(np.array(got, np.float32), np.array(want, np.float32)) > 95) == good


def test_whole_numbers_agree_or_do_not():
    assert agreement(np.array([1, 2]), np.array([1, 2])) > 95
    assert agreement(np.array([1, 3]), np.array([1, 2])) < 0
