"""A pass that says nothing of itself changes no purpose, needs nothing and moves nothing."""

import pytest
from pydantic import ValidationError

from engines import plugins
from exporter.recipe.pass_options import PassOptions


class Plain(PassOptions):
    share: float = 0.5


def test_what_a_pass_is_unless_it_says_otherwise():
    plain = Plain(share=0.25)
    assert (plain.kind, plain.recorded, plain.purpose) == ("weights", False, None)
    assert plain.config({"a": 1}) == {"a": 1}
    assert plain.moved({"a": 1}, {"b": 2}) == {}
    assert plain.model_dump() == {"share": 0.25}, "what it says of itself is no option"


def test_its_options_are_closed_and_frozen():
    with pytest.raises(ValidationError, match="kind"):
        Plain(kind="swap")
    with pytest.raises(ValidationError, match="frozen"):
        Plain().share = 1.0


def test_every_pass_is_one():
    kinds = [plugins.load("passes", name) for name in plugins.names("passes")]
    assert kinds
    assert all(issubclass(kind, PassOptions) for kind in kinds)
    assert {kind.kind for kind in kinds} == {"network", "swap", "training", "graph"}
