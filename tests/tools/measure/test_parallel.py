import numpy as np
import pytest

from engines.parallel.picard import Picard
from tools.measure import parallel


def test_psnr_of_pictures_in_zero_to_one():
    one = np.zeros((4, 4, 3))
    assert parallel.psnr(one, one + 0.1) == pytest.approx(20)
    assert parallel.psnr(one, one) > 150


def test_settings_are_those_of_the_command_line():
    text = "window=50,tolerance=0.03,anderson=0"
    assert str(Picard.model_validate_strings(dict(pair.split("=") for pair in text.split(",")))) == text
