"""Sizes with their units."""

import pytest

from exporter.cluster.sizes import size


def test_sizes_have_units():
    assert (size("1.5 GB"), size("2MiB")) == (1.5e9, 2 * 2**20)
    with pytest.raises(ValueError, match="'2 parsecs' is no size; write such as 8 GB; there are: B, kB"):
        size("2 parsecs")
