"""Columns and their units, and constraints on them."""

import pytest

from exporter.sweep.quantities import QUANTITIES, Constraint, score_quantity

KNOWN = {**QUANTITIES, "prompt_score": score_quantity("prompts right", higher_is_better=True)}


@pytest.mark.parametrize(
    ("text", "quantity", "bound", "kept", "broken"),
    [
        ("latency < 2 s", "latency", 2.0, 1.9, 2.0),
        ("latency<=150ms", "latency", 0.15, 0.15, 0.16),
        ("  memory <  8 GB ", "memory", 8e9, 7e9, 8e9),
        ("memory < 8 GiB", "memory", 8 * 2**30, 8e9, 9e9),
        ("parameters < 5 M", "parameters", 5e6, 4e6, 5e6),
        ("prompt_score >= 90 %", "prompt_score", 0.9, 0.9, 0.89),
        ("prompt_score > 1e-1", "prompt_score", 0.1, 0.2, 0.1),
        ("build_time < 1 h", "build_time", 3600, 10, 3600),
        ("energy < 2 kJ", "energy", 2000, 1999, 2001),
    ],
)
def test_a_constraint_is_a_bound_in_the_base_unit(text, quantity, bound, kept, broken):
    found = Constraint.parse(text, KNOWN)
    assert (found.quantity, found.bound) == (quantity, pytest.approx(bound))
    assert found.kept(kept)
    assert not found.kept(broken)
    assert not found.kept(None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("latency", "is no constraint; write such as 'latency < 2 s'"),
        ("latency = 2 s", "is no constraint"),
        ("latency < s", "is no constraint"),
        ("latency < 1.2.3 s", "'1.2.3' is no number"),
        ("memry < 1 GB", "'memry' is not measured; did you mean 'memory'?"),
        ("memory < 1 s", "memory has no unit 's'; there are: B, kB, MB, GB, KiB, MiB, GiB"),
        ("prompt_score > 1 MB", "prompt_score has no unit 'MB'; there are: dB, %"),
    ],
)
def test_what_is_none_says_what_to_write(text, told):
    with pytest.raises(ValueError, match=r".") as error:
        Constraint.parse(text, KNOWN)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("latency", 0.1434, "143 ms"),
        ("latency", 12.345, "12.3 s"),
        ("memory", 3.1e8, "310.0 MB"),
        ("memory", 8.25e9, "8.25 GB"),
        ("parameters", 9259844, "9.26 M"),
        ("multiply_adds", 3.4e12, "3.4 T"),
        ("multiply_adds", 120, "120"),
        ("energy", 12.345, "12.3 J"),
        ("prompt_score", 0.93125, "0.9313"),
        ("prompt_score", None, "–"),
    ],
)
def test_a_value_is_shown_with_its_unit(name, value, shown):
    assert KNOWN[name].shown(value) == shown


@pytest.mark.parametrize(
    ("text", "value", "excess"),
    [("latency < 2 s", 3.0, 0.5), ("latency < 2 s", 1.0, -0.5), ("prompt_score >= 0.8", 0.6, 0.25)],
)
def test_how_far_beyond_a_bound_a_value_is(text, value, excess):
    assert Constraint.parse(text, KNOWN).excess(value) == pytest.approx(excess)
