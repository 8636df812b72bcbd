"""Pages that are made from the code are what the code says."""

import re

import pytest

from exporter.recipe import Recipe
from tools import write_tables


@pytest.mark.parametrize("name", write_tables.PAGES)
def test_the_page_is_current(name):
    stale = f"docs/{name} is stale: python -m tools.write_tables"
    assert (write_tables.DOCS / name).read_text(encoding="utf-8") == write_tables.PAGES[name](), stale


def test_every_example_is_a_sampler():
    examples = re.findall(r"```yaml\n(.*?)```", write_tables.pairing_page(), re.DOTALL)
    assert len(examples) > 5
    for example in examples:
        recipe = Recipe.parse(f"{example}model: {{source: a}}\nshapes: {{height: [8, 8, 8], width: [8, 8, 8]}}", "x")
        assert recipe.sampler.steps
