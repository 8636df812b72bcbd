"""The table says what was measured, against its first row."""

import click
import numpy as np
import pytest

from tools.demo.compare_models import Row, measure, scored, sheet, table


def line(source, right):
    return {"source": source, **{group: {"share": right} for group in ("all-single", "two", "all")}}


def test_ratios_are_to_the_first_row():
    rows = [Row("demo", 8_000_000, 40.0, 25, 0.4, line("demo", 0.9)), Row("small", 2_000_000, 12.5, 4, 0.02, line("small", 0.81))]
    *_, first, second = table(rows).splitlines()
    assert first == (
        "| demo | 8.00 M (100.0%) | 40.0 MB | 25 | 400 | 1.00 | 90.0% | 90.0% | 90.0% | 100.0% | `recipes/demo.yaml` |"
    )
    assert second == (
        "| small | 2.00 M (25.0%) | 12.5 MB | 4 | 20 | 20.00 | 81.0% | 81.0% | 81.0% | 90.0% | `recipes/small.yaml` |"
    )


def test_a_score_is_of_the_bundle_or_of_its_recipe_and_the_last_counts():
    lines = [line("recipes/small.yaml", 0.1), line("bundles/small", 0.2), line("recipes/smaller.yaml", 0.3)]
    assert scored("small", lines)["all"]["share"] == 0.2
    with pytest.raises(click.ClickException, match="no score of large; there are those of: bundles/small"):
        scored("large", lines)


def test_everybody_draws_in_every_round_another_first():
    calls = []

    class Pipeline:
        def __init__(self, name):
            self.name = name

        def generate(self, prompt, *, seed):
            calls.append((self.name, prompt, seed))

    spent = measure({"a": Pipeline("a"), "b": Pipeline("b")}, rounds=2)
    assert [name for name, _, _ in calls] == ["a", "b", "b", "a", "a", "b"]
    assert all(one[1:] == other[1:] for one, other in zip(calls[::2], calls[1::2], strict=True))
    assert set(spent) == {"a", "b"}


def test_the_sheet_has_a_row_for_each_model():
    colours = {"one": 0, "two": 200}
    page = np.asarray(sheet({name: np.full((2, 64, 64, 3), grey, np.uint8) for name, grey in colours.items()}, ["a", "b"]))
    assert (page[48 + 8 + 60, 150 + 8 + 60] == 0).all()
    assert (page[48 + 8 + 136 + 60, 150 + 8 + 136 + 60] == 200).all()
