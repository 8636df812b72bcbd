"""A pass that says nothing of itself changes no purpose, needs nothing and moves nothing."""

import pytest
from pydantic import ValidationError

from engines import plugins
from exporter.recipe.pass_options import PassOptions


class Plain(PassOptions):
    share: float = 0.5


def test_what_a_pass_is_unless_it_says_otherwise():
    plain = Plain(share=0.25)
    assert (plain.remakes, plain.swaps, plain.trains, plain.recorded, plain.made) == (False, False, False, False, None)
    assert plain.moved({"a": 1}, {"b": 2}) == {}
    assert plain.model_dump() == {"share": 0.25}, "what it says of itself is no option"


def test_its_options_are_closed_and_frozen():
    with pytest.raises(ValidationError, match="remakes"):
        Plain(remakes=True)
    with pytest.raises(ValidationError, match="frozen"):
        Plain().share = 1.0


def test_every_pass_is_one():
    kinds = [plugins.load("passes", name) for name in plugins.names("passes")]
    assert kinds
    assert all(issubclass(kind, PassOptions) for kind in kinds)
    assert any(kind.remakes for kind in kinds)
    assert any(kind.swaps for kind in kinds)
    assert any(kind.trains for kind in kinds)
