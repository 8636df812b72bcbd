"""Times in half precision: what a pipeline rounds is kept until it meets weights, and nothing else is."""

import pytest
import torch
from torch.nn.functional import linear

from exporter.families.tracing.following.exact_times import ExactTimes, exact

TIMES = torch.tensor([751.2, 333.3])
FREQUENCIES = torch.tensor([1.0, 0.1])


def embedded(times, half):
    """As flow matching embeds them: shares of 1 in the network's own format, by 1000, their sinusoids, and its weights."""
    share = (times / 1000).expand(2).to(half)
    angles = (share * 1000)[:, None] * FREQUENCIES
    angles = torch.cat([angles.sin(), angles.cos()], dim=-1)
    weight = torch.ones(1, 4, dtype=half)
    return linear(angles.to(dtype=weight.dtype), weight)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_time_is_rounded_where_it_meets_weights_and_not_before(half):
    right = embedded(TIMES, torch.float32)
    with ExactTimes():
        found = embedded(exact(TIMES.clone()), half)
        others = embedded(TIMES.clone(), half)
    assert found.dtype == others.dtype == half
    error, usual = (float((each.float() - right).abs().max()) for each in (found, others))
    assert error < 2 * torch.finfo(half).eps < 0.05 < usual, "sums of four numbers up to 1, and another angle"


def test_a_loop_over_the_times_of_a_scheduler_and_what_no_time_is_stay_as_they_are():
    with ExactTimes():
        (time,) = exact(TIMES[None, 0])
        kept = time.to(torch.float16)
        assert kept == TIMES[0]
        assert kept.dtype == torch.float16, "as a pipeline asks for it, which gives others the same"
    assert kept.dtype == torch.float32
    with ExactTimes():
        assert time.long().to(torch.float16).dtype == torch.float16, "a whole number is none that is rounded"
        assert (TIMES.to(torch.float16) + time.half()).dtype == torch.float16
        assert TIMES.half().dtype == torch.float16


def test_a_latent_that_is_scaled_by_its_time_is_none():
    with ExactTimes():
        latent = torch.ones(2, 4, 3, 3) * exact(TIMES.clone()).view(-1, 1, 1, 1)
        made = latent.to(torch.float16)
    assert made.dtype == torch.float16, "and not only said to be: what is made of it is as narrow"


def test_in_float32_a_time_is_what_it_is_everywhere():
    with ExactTimes():
        assert torch.equal(embedded(exact(TIMES.clone()), torch.float32), embedded(TIMES, torch.float32))
