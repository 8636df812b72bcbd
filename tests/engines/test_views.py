"""A picture that several ports take, each in a size of its own: what is said of it, and what of it counts."""

import pytest
from pydantic import ValidationError

from engines.inputs import Input, Preprocessing, View


def test_views_are_of_pictures_and_shaped_as_these():
    shape, about = ("batch", 4, 4, 3), Preprocessing()
    made = Input(
        kind="image", shape=shape, preprocessing=about, default=0.5, views={"seen": View(shape=shape, preprocessing=about)}
    )
    seen = made.taken("hint")["seen"]
    assert (seen.shape, seen.default, seen.views, list(made.taken("hint"))) == (shape, 0.5, {}, ["hint", "seen"])
    assert Input.model_validate_json(made.model_dump_json(), strict=True) == made
    with pytest.raises(ValidationError, match="of 1 channel or an image's 3"):
        Input(kind="image", shape=shape, preprocessing=about, views={"seen": View(shape=("batch", 4, 4, 2), preprocessing=about)})
    with pytest.raises(ValidationError, match="no views"):
        Input(kind="number", shape=("batch",), views={"seen": View(shape=shape, preprocessing=about)})


def test_a_view_counts_for_what_is_drawn_and_its_absence_changes_no_older_digest():
    plain = Input(kind="image", shape=("batch", 4, 4, 3), preprocessing=Preprocessing(), about="edges")
    assert plain.counting() == plain.model_dump(mode="json", exclude={"about", "views"})
    seen = View(shape=("batch", 2, 2, 3), preprocessing=Preprocessing())
    assert plain.model_copy(update={"views": {"seen": seen}}).counting()["views"]["seen"]["shape"] == ["batch", 2, 2, 3]
