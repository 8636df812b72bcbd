import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.images.drawn import Drawn


def test_pictures_are_the_images_and_say_how_they_were_made():
    images = np.linspace(0, 1, 2 * 3 * 4 * 3, dtype=np.float32).reshape(2, 3, 4, 3)
    one, other = Drawn(None, images, [{"seed": "1"}, {"seed": "2"}]).pictures()
    np.testing.assert_array_equal(np.stack([one, other]), (images * 255).round())
    assert (one.info, other.info) == ({"seed": "1"}, {"seed": "2"})


def test_what_was_not_decoded_has_no_pictures():
    assert Drawn(np.zeros((1, 4, 2, 2), np.float32), None, [{}]).pictures() == []


def test_an_image_that_is_no_number_is_refused():
    with pytest.raises(UnsupportedError, match="NaN or infinity"):
        Drawn(None, np.full((1, 2, 2, 3), np.nan, np.float32), [{}]).pictures()
