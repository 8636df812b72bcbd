"""A range is chosen from what was seen, call by call."""

import numpy as np
import pytest

from exporter.quantization import clipping
from exporter.quantization.observer import BINS, ActivationStats


def watched(*arrays):
    found = ActivationStats()
    for array in arrays:
        found.see(np.asarray(array, np.float32).reshape(1, 1, -1), 1, len(arrays), rows=False)
    return found


def test_minmax_is_the_largest_of_all_calls():
    assert clipping.clip_range(watched([1, -3, 2], [0.5, 7]), "minmax", 99.9, "int8") == 7.0


def test_a_percentile_leaves_rare_large_numbers_out():
    random = np.random.default_rng(0)
    found = watched(np.append(random.uniform(-1, 1, 100_000), 50.0))
    assert clipping.clip_range(found, "minmax", 99.9, "int8") == 50.0
    assert clipping.clip_range(found, "percentile", 99.9, "int8") < 1.1


def test_stepwise_lets_a_quiet_step_count_as_much_as_a_loud_one():
    random = np.random.default_rng(0)
    quiet, loud = random.normal(0, 0.02, 50_000), np.append(random.normal(0, 0.02, 50_000), random.normal(0, 1.0, 500))
    few = clipping.clip_range(watched(*[quiet] * 7, loud), "stepwise", 99.9, "int8")
    alone = clipping.clip_range(watched(loud), "stepwise", 99.9, "int8")
    assert few < alone <= np.abs(loud).max() * 1.01


def test_fp8_takes_the_largest_whatever_the_method():
    found = watched([1.0] * 1000 + [123.456])
    for method in ("minmax", "percentile", "stepwise"):
        assert clipping.clip_range(found, method, 99.0, "fp8") == 123.5  # four digits


@pytest.mark.parametrize("tail", [0.0, 0.5])
def test_stepwise_is_near_the_best_of_all_ranges(tail):
    """Judged on the numbers themselves, rounded and clipped, and not on their histogram."""
    random = np.random.default_rng(3)
    calls = [np.append(random.normal(0, size, 20_000), random.normal(0, 20 * size, int(40 * tail))) for size in (0.1, 1.0)]

    def loss(clip):
        step = clip / 127
        back = [np.clip(np.rint(call / step), -127, 127) * step for call in calls]
        return np.mean([np.square(made - call).sum() / np.square(call).sum() for made, call in zip(back, calls, strict=True)])

    largest = max(np.abs(call).max() for call in calls)
    best = min(loss(share * largest) for share in np.linspace(0.1, 1, 50))
    assert loss(clipping.clip_range(watched(*calls), "stepwise", 99.9, "int8")) <= 1.02 * best


def test_a_call_of_zeros_has_no_say():
    random = np.random.default_rng(0)
    loud = np.append(random.normal(0, 0.02, 5000), 1.0)
    ranges = [clipping.clip_range(watched(*calls), "stepwise", 99.9, "int8") for calls in ([loud], [loud, np.zeros(10)])]
    assert ranges[0] == ranges[1]


def test_the_evidence_is_what_was_seen():
    found = watched(np.linspace(0, 1, 1001), np.linspace(0, 3.9, 1001))
    seen = clipping.seen(found, ["999", "499"])
    assert (seen.largest, seen.top) == (3.9, 4.0)
    assert seen.steps == (("999", 1.0), ("499", 3.9))
    assert (len(seen.histogram), sum(seen.histogram)) == (64, 2002)
    both = np.sort(np.concatenate([np.linspace(0, 1, 1001), np.linspace(0, 3.9, 1001)]))
    for name, percent in (("50", 50), ("90", 90), ("99.9", 99.9)):
        assert seen.percentiles[name] == pytest.approx(np.percentile(both, percent), abs=2 * 4.0 / BINS)
    with pytest.raises(ValueError, match="zip"):
        clipping.seen(found, ["999"])
