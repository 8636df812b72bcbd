"""A scale that is an input of the graph, where a pipeline's code has a number."""

import pytest
import torch

from exporter.families.tracing.following.open_scale import OpenScale
from exporter.families.tracing.following.standins import Answered


def test_a_scale_is_on_or_off_whatever_it_is_compared_with_and_one_number_a_picture():
    on, off = OpenScale(torch.tensor([2.0, 3.0]), on=True), OpenScale(torch.tensor([2.0]), on=False)
    assert on > 1.0
    assert not on <= 5
    assert not off > 1.0
    assert (on.compared, on.used, on.threshold) == (True, False, 5)
    mixed = on * torch.ones(2, 1, 2) - torch.ones(2, 1, 2)
    assert mixed.tolist() == [[[1.0, 1.0]], [[2.0, 2.0]]]
    assert on.used
    assert (on - 1).value.tolist() == [1.0, 2.0]


def test_where_it_is_off_it_is_the_largest_number_that_it_was_compared_with():
    on, off = OpenScale(torch.tensor([2.0]), on=True), OpenScale(torch.tensor([2.0]), on=False)
    for scale in (on, off):
        assert (scale > 1.0) is scale.on
        assert scale != 0, "such as to leave the prompt out"
        assert (scale == 1.0) is not scale.on
        assert scale.threshold == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_it_makes_of_a_tensor_is_no_wider_than_what_a_number_would_make(dtype):
    scale, given = OpenScale(torch.tensor([2.0, 3.0]), on=True), torch.full((2, 1, 2), 0.1, dtype=dtype)
    with Answered(torch.zeros):
        found = [scale * given, given * scale, scale + given, given - scale, torch.mul(given, scale)]
    assert {each.dtype for each in found} == {dtype}
    assert torch.equal(found[1][1], given[1] * 3.0)
    assert torch.equal(found[3][0], given[0] - 2.0)
    assert (scale * torch.ones(2, dtype=torch.int64)).dtype == torch.float32, (
        "a whole number becomes a real one, as with Python's"
    )
