"""What a point asks of a machine, in words and numbers."""

import pytest
from pydantic import ValidationError

from exporter.cluster.resources import ANYTHING, Resources


def test_it_is_told_in_words():
    assert str(Resources(cpus=4, memory="16 GiB", gpu="9.0")) == "4 CPUs and 16 GiB of memory and a GPU of compute capability 9.0"
    assert str(ANYTHING) == "any machine"
    assert (Resources(memory="16 GiB").bytes, ANYTHING.bytes) == (16 * 2**30, 0)


@pytest.mark.parametrize("wrong", [{"gpu": "H100"}, {"gpu": "9"}, {"memory": "8"}, {"memory": "8 Gb"}, {"cpus": 0}])
def test_what_is_none_is_refused(wrong):
    with pytest.raises(ValidationError):
        Resources(**wrong)
