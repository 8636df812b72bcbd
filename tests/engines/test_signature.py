import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engines.errors import UnsupportedError
from engines.signature import Port, Range, Signature

SIGNATURE = Signature(
    inputs=(Port(name="x", shape=("batch", 3, "2*side")), Port(name="ids", dtype="int64", shape=("batch",))),
    outputs=(Port(name="y", shape=("batch", "8*side")),),
    dims={"batch": Range(min=1, typical=1, max=4), "side": Range(min=4, typical=8, max=16, multiple=4)},
)


def arrays(batch=1, side=8):
    return {"x": np.zeros((batch, 3, 2 * side), np.float32), "ids": np.zeros(batch, np.int64)}


@given(st.integers(0, 6), st.integers(0, 20))
def test_sizes_are_read_off_exactly_within_the_ranges(batch, side):
    allowed = 1 <= batch <= 4 and 4 <= side <= 16 and side % 4 == 0
    if allowed:
        assert SIGNATURE.sizes(arrays(batch, side)) == {"batch": batch, "side": side}
        assert SIGNATURE.shape(SIGNATURE.outputs[0], {"batch": batch, "side": side}) == (batch, 8 * side)
    else:
        with pytest.raises(UnsupportedError, match="this engine takes"):
            SIGNATURE.sizes(arrays(batch, side))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((1, 3, 16))}, "must be float32"),
        ({"x": np.zeros((1, 3), np.float32)}, "must be float32"),
        ({"x": np.zeros((1, 2, 16), np.float32)}, "one length is 2, not 3"),
        ({"x": np.zeros((1, 3, 17), np.float32)}, "8 to 32 in steps of 8"),
        ({"ids": np.zeros(2, np.int64)}, "batch is 2 here and 1 in another"),
        ({"more": np.zeros(1, np.float32)}, "expected inputs"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(UnsupportedError, match=message):
        SIGNATURE.sizes({**arrays(), **change})


def test_extents_lengths_and_ports():
    assert SIGNATURE.extent("max") == {"batch": 4, "side": 16}
    assert SIGNATURE.lengths("8*side") == (32, 128, 32)
    assert SIGNATURE.lengths(3) == (3, 3, 3)
    assert SIGNATURE.port("y") == SIGNATURE.outputs[0]
    assert SIGNATURE.port("z") is None


@pytest.mark.parametrize(
    "change",
    [
        {"dims": {}},
        {"dims": {**SIGNATURE.dims, "other": Range(min=1, typical=1, max=1)}},
        {"inputs": (*SIGNATURE.inputs, SIGNATURE.inputs[0])},
    ],
)
def test_a_signature_is_closed(change):
    with pytest.raises(ValidationError):
        Signature(**{**dict(SIGNATURE), **change})


@pytest.mark.parametrize("values", [(2, 1, 3), (1, 4, 3), (1, 2, 3)])
def test_a_range_rises_in_multiples(values):
    with pytest.raises(ValidationError, match=r"must"):
        Range(min=values[0], typical=values[1], max=values[2], multiple=2)


def test_a_length_may_be_0_where_there_may_be_nothing():
    """As of a text without ids: what is fed then has no elements, and a network is run on it."""
    texts = Signature(
        inputs=(Port(name="ids", dtype="int64", shape=("batch", "length")),),
        outputs=(Port(name="states", shape=("batch", "length", 8)),),
        dims={"batch": Range(min=1, typical=1, max=1), "length": Range(min=0, typical=3, max=9)},
    )
    assert texts.sizes({"ids": np.zeros((1, 0), np.int64)}) == {"batch": 1, "length": 0}
    with pytest.raises(UnsupportedError, match="takes 0 to 9"):
        texts.sizes({"ids": np.zeros((1, 10), np.int64)})
    with pytest.raises(ValidationError):
        Range(min=0, typical=0, max=0)
