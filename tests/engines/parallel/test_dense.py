"""The ops of a sampler as arrays hold what the ops say."""

import numpy as np

from engines.parallel.dense import DenseProgram
from engines.sampler_ops import Draw, Emit, Eval, GivenLatent
from tests.engines import small

OPS = (
    Draw(),
    GivenLatent(name="image"),
    Eval(t=900, row=(0.5, 0.25), preview=(2.0, -0.5)),
    Draw(),
    Eval(t=0.1, row=(0.0, 0.0, 1.0), kept=(0.125,)),
    Emit(row=(1.0, 2.0, 3.0, 4.0, 5.0), kept=(0.0, 1.0)),
)


def test_places_times_and_rows():
    plan = DenseProgram(OPS)
    assert plan.evals == [OPS[2], OPS[4]]
    np.testing.assert_array_equal(plan.at, [2, 4])
    assert plan.at.dtype == np.int64
    assert plan.drawn == [0, 1, 3]
    np.testing.assert_array_equal(plan.times, np.float32([900, 0.1]))
    np.testing.assert_array_equal(plan.rows, [[0.5, 0.25, 0, 0, 0], [0, 0, 1, 0, 0], [1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(plan.kept, [[0.125, 0, 0, 0, 0], [0, 1, 0, 0, 0]])
    assert plan.rows.dtype == plan.kept.dtype == plan.times.dtype == np.float32


def test_an_output_moves_with_its_input_as_the_preview_says():
    plan = DenseProgram(OPS)
    assert plan.pairs == [(2.0, -0.5), None]
    np.testing.assert_array_equal(plan.hold, np.float32([4.0, 0.0]))  # 2 x - y / 2 stands still where y moves 4 times as far
    latent, output = np.full((1, 1, 1, 2), 3, np.float32), np.full((1, 1, 1, 2), 8, np.float32)
    np.testing.assert_array_equal(plan.clean(0, latent, output), np.full((1, 1, 1, 2), 2 * 3 - 0.5 * 8))
    still = plan.clean(0, latent + 1, output + plan.hold[0])
    np.testing.assert_array_equal(still, plan.clean(0, latent, output))
    assert plan.clean(1, latent, output) is None


def test_an_output_with_no_say_tells_nothing_of_the_clean_latent():
    """The share of noise is judged against the input's share, and not for small shares of the input."""
    previews = [(1000.0, 0.5), (1000.0, 1.5), (0.0, 0.0005), (0.0, 0.0015)]
    ops = [Draw(), *(Eval(t=1, row=(1.0,), preview=preview) for preview in previews), Emit(row=(1.0,))]
    assert DenseProgram(tuple(ops)).pairs == [None, previews[1], None, previews[3]]


def test_without_a_mask_nothing_is_kept_and_without_evaluations_there_is_the_emit():
    assert DenseProgram(small.table(3).ops).kept is None
    plan = DenseProgram((Draw(), Emit(row=(2.0,))))
    np.testing.assert_array_equal(plan.rows, [[2.0]])
    assert plan.at.shape == plan.times.shape == plan.hold.shape == (0,)


def test_a_number_that_float32_cannot_hold_becomes_infinite_without_a_warning():
    plan = DenseProgram((Draw(), Emit(row=(1e300,))))
    assert np.isinf(plan.rows).all()
