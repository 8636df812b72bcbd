"""Times in half precision: what a pipeline rounds is kept until it meets weights, and nothing else is."""

import pytest
import torch
from torch.nn.functional import linear

from exporter.families.tracing.following.exact_times import ExactTimes, exact
from exporter.families.tracing.following.origins import STEP, Origins, marked

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


def test_what_weights_make_of_a_time_is_none_also_where_they_are_kept_in_float32():
    """As of networks whose embedding of times is in float32: a hidden state that is computed with it is rounded as usual."""
    hidden, weight = torch.full((2, 5, 4), 1 / 3), torch.ones(4, 2)
    with ExactTimes():
        scale = linear(exact(TIMES.clone())[None].to(torch.float16), weight)
        state = (hidden * scale[:, None]).to(torch.float16)
    assert scale.dtype == torch.float32
    assert state.dtype == torch.float16


def test_a_whole_number_that_is_asked_for_in_halves_is_exact():
    with ExactTimes():
        found = exact(torch.tensor([3559]), torch.float16)
        assert found.dtype == torch.float16
    assert (found.dtype, found.tolist()) == (torch.float32, [3559.0])


def test_with_pictures_what_crosses_in_halves_is_what_crosses_in_float32():
    """A time takes the format of a hint before anything is computed with that: what crosses first and second stays so."""

    def crossed(half):
        seen, weight = [], torch.ones(4, 4, dtype=half)
        first, second = (marked(torch.full((1, 5, 4), value, dtype=half), "image") for value in (2.0, 3.0))
        time = marked(TIMES[:1].clone(), STEP)
        with Origins(lambda number, made: seen.append((number, float(made.flatten()[0]))) or made), ExactTimes():
            angles = exact(time).to(half).type_as(second)[:, None] * 1000 * torch.ones(4)
            scale = linear(angles.to(half), weight)
            state = first * scale[:, None]
            state = state + second
        return seen, state.dtype

    assert crossed(torch.float32) == ([(0, 2.0), (1, 3.0)], torch.float32)
    assert crossed(torch.float16) == ([(0, 2.0), (1, 3.0)], torch.float16)
