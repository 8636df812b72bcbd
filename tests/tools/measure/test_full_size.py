"""What is built at full size is what was published."""

import click
import pytest

from tools.measure.full_size import PUBLISHED, _counted, _made_up


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    assert _counted(name)["parameters"] / 1e6 == pytest.approx(PUBLISHED[name][0], abs=1)
    # Two bytes a parameter, and names.
    assert PUBLISHED[name][1] == pytest.approx(2 * PUBLISHED[name][0], rel=0.01)


def test_what_is_counted_is_what_is_built():
    whole = _counted("sdxl-to-koala-1b", ["components.unet.passes=[]"])
    assert whole["parameters"] / 1e6 == pytest.approx(PUBLISHED["sdxl-base"][0], abs=1)


def test_a_recipe_must_say_how_to_do_without_weights():
    assert "model.source=sdxl-base" in _made_up("sdxl-to-koala-1b")
    with pytest.raises(click.ClickException, match="does not say how to build it without weights"):
        _made_up("demo")
