"""A first stage that draws cells of the picture holds one size, and one that draws an embedding any."""

import pytest

from engines.errors import RecipeError
from exporter.families.tracing import earlier_sizes
from tests.exporter.families.test_traced import RECIPE, family
from tests.exporter.families.tracing.pipelines.test_two_stages import LARGE, WHOLE


def test_cells_follow_the_size_and_embeddings_do_not(model):
    cells = family(model("cascade"), text=LARGE).survey
    assert not earlier_sizes.differ(cells, 128, 128)
    assert earlier_sizes.differ(cells, 128, 256)
    assert not earlier_sizes.differ(family(model("kandinsky22"), text=WHOLE).survey, 32, 64)
    assert not earlier_sizes.differ(family(model("pixart-sigma"), text=RECIPE).survey, 32, 64)


def test_several_sizes_are_refused_with_the_typical_one(model):
    text = LARGE.replace("width: [128, 128, 128]", "width: [128, 128, 256]")
    wanted = r"draws as many cells as the size asks for; write one size, \[128, 128, 128\] and"
    with pytest.raises(RecipeError, match=wanted) as told:
        family(model("cascade"), text=text)
    assert "of which" not in str(told.value), "what is said of each size has no place beside that"
