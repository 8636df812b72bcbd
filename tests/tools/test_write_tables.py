"""Pages that are made from the code are what the code says."""

import re

import pytest

from exporter.recipe.schema import Recipe
from tools import write_tables

NUMBER = re.compile(r"(?<=\| )\d[\d.]*(?:e[-+]\d+)?(?= \|)")


def test_the_page_of_pairs_is_current():
    stale = "docs/pairing.md is stale: python -m tools.write_tables"
    assert (write_tables.DOCS / "pairing.md").read_text(encoding="utf-8") == write_tables.pairing_page(), stale


def test_the_page_of_samplers_is_current():
    """Word for word; its figures but for what another processor's rounding may change."""
    stale = "docs/samplers.md is stale: python -m tools.write_tables"
    shipped, made = (write_tables.DOCS / "samplers.md").read_text(encoding="utf-8"), write_tables.sampler_page()
    assert NUMBER.sub("#", shipped) == NUMBER.sub("#", made), stale
    for old, new in zip(shipped.splitlines(), made.splitlines(), strict=True):
        figures = [[float(number) for number in NUMBER.findall(line)] for line in (old, new)]
        for one, other in zip(*figures, strict=True):
            tiny = max(one, other) < 1e-3  # a deviation
            assert one == pytest.approx(other, rel=20 if tiny else 0.1, abs=1e-6 if tiny else 0), f"{stale}\n{old}\n{new}"


def test_the_page_of_formats_is_current():
    stale = "docs/formats.md is stale: python -m tools.write_tables"
    assert (write_tables.DOCS / "formats.md").read_text(encoding="utf-8") == write_tables.format_page(), stale


def test_every_example_is_a_sampler():
    examples = re.findall(r"```yaml\n(.*?)```", write_tables.pairing_page(), re.DOTALL)
    assert len(examples) > 5
    for example in examples:
        recipe = Recipe.parse(f"{example}model: {{source: a}}\nshapes: {{height: [8, 8, 8], width: [8, 8, 8]}}", "x")
        assert recipe.sampler.steps
