from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engines.errors import BundleError, UnsupportedError
from engines.parallel.picard import Picard
from engines.sampler_ops import Draw, Emit, Eval, GivenLatent, Scaled
from engines.samplers import Cancelled
from engines.samplers.table import Table
from tests.engines import small
from tests.engines.samplers.unrolled import Mixture, compiled, draws

SHAPE = (3, 4, 3, 5)
GOLDEN = sorted((Path(__file__).parents[2] / "exporter" / "schedulers" / "golden").glob("*.json"))
OWN = {f"{kind}-{steps}": compiled(steps, kind) for kind in ("ddim", "ancestral", "heun") for steps in (1, 9)}
TABLES = {**{path.stem: Table.load(path) for path in GOLDEN}, **OWN, "no previews": compiled(9, previews=False)}
EXACT = Picard(window=64, tolerance=0)


def curved(latent, timestep, _=None):
    time = np.broadcast_to(np.asarray(timestep, np.float32) / 1000, (len(latent),))[:, None, None, None]
    return np.tanh(latent) * np.float32(0.7) + time


def straight(latent, *_):
    return latent * np.float32(0.5)


def distance(got, want):
    return np.sqrt(np.mean(np.square(got - want, dtype=np.float64)) / np.mean(np.square(want, dtype=np.float64)))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (curved, {"window": 1}),
        (curved, {"window": 3, "anderson": 0}),
        (curved, {"window": 3}),
        (curved, {"window": 64, "anderson": 3}),
        (straight, {"window": 4}),
        (Mixture(SHAPE[1:]), {"window": 5, "anderson": 2}),
    ],
)
def test_without_tolerance_it_is_the_sequential_sampler(name, model, options):
    table = TABLES[name]
    want = table.play(model, draws(SHAPE))
    got = Picard(**options, tolerance=0).over(table).play(model, draws(SHAPE))
    assert got.dtype == np.float32
    assert distance(got, want) < 1e-5


@st.composite
def tables(draw):
    ops, numbers = [Draw()], st.floats(-1.5, 1.5, width=32)
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.booleans()):
            ops.append(Draw())
        else:
            preview = draw(st.none() | st.tuples(st.floats(0, 3), st.floats(-3, 3)))
            ops.append(Eval(t=draw(st.floats(0, 1000)), row=draw(st.lists(numbers, max_size=len(ops))), preview=preview))
    return Table(provenance=small.table().provenance, ops=(*ops, Emit(row=draw(st.lists(numbers, max_size=len(ops))))))


@given(tables(), st.integers(1, 10), st.integers(0, 2))
def test_without_tolerance_any_table_plays_as_it_does_in_sequence(table, window, anderson):
    player = Picard(window=window, tolerance=0, anderson=anderson).over(table)
    np.testing.assert_allclose(player.play(curved, draws(SHAPE)), table.play(curved, draws(SHAPE)), atol=3e-3, rtol=1e-4)
    count = sum(isinstance(op, Eval) for op in table.ops)
    assert all(effort.iterations <= effort.sequential == count for effort in player.efforts)


@pytest.mark.parametrize(("kind", "steps", "most"), [("ddim", 60, 8), ("ancestral", 120, 14), ("heun", 30, 9)])
def test_few_iterations_come_close(kind, steps, most):
    table, model = compiled(steps, kind), Mixture(SHAPE[1:])
    want = table.play(model, draws(SHAPE))
    player = Picard(window=40, tolerance=0.02).over(table)
    got = player.play(model, draws(SHAPE))
    assert distance(got, want) < 0.02
    assert all(effort.iterations <= most for effort in player.efforts)
    assert all(effort.evaluations > effort.sequential for effort in player.efforts)


def test_the_tolerance_governs_the_error_and_the_iterations():
    table, model = compiled(60), Mixture(SHAPE[1:])
    want, errors, iterations = table.play(model, draws(SHAPE)), [], []
    for tolerance in (0.2, 0.03, 0.004, 0.0):
        player = Picard(window=60, tolerance=tolerance).over(table)
        errors.append(distance(player.play(model, draws(SHAPE)), want))
        iterations.append(player.efforts[0].iterations)
    assert errors == sorted(errors, reverse=True)
    assert iterations == sorted(iterations)
    assert errors[0] > 10 * errors[2]
    assert errors[2] < 3e-3


def test_anderson_saves_iterations():
    table, model, counts = compiled(60, previews=False), Mixture(SHAPE[1:]), []
    for anderson in (0, 1):
        player = Picard(window=60, tolerance=0.02, anderson=anderson).over(table)
        assert distance(player.play(model, draws(SHAPE)), table.play(model, draws(SHAPE))) < 0.01
        counts.append(sum(effort.iterations for effort in player.efforts))
    assert counts[1] < counts[0]


def test_knowing_the_clean_latent_saves_iterations_where_noise_is_added():
    model, counts = Mixture(SHAPE[1:]), []
    for previews in (True, False):
        player = Picard(window=40, tolerance=0.05).over(compiled(120, "ancestral", previews=previews))
        player.play(model, draws(SHAPE))
        counts.append(sum(effort.iterations for effort in player.efforts))
    assert counts[0] < counts[1]


def test_a_picture_goes_its_own_way_whatever_its_batch():
    table, model = compiled(30, "ancestral"), Mixture(SHAPE[1:], pictures=3)
    model.means[1] *= 4  # so that the pictures are not equally hard
    source = draws(SHAPE)
    noises = [source() for op in table.ops if isinstance(op, Draw)]
    together = Picard(window=10).over(table)
    latent = together.play(model, iter(noises).__next__)
    assert len({effort.iterations for effort in together.efforts}) > 1
    for index in range(3):
        alone = Picard(window=10).over(table)
        own = iter([noise[index : index + 1] for noise in noises])
        one = alone.play(lambda x, t, which, index=index: model(x, t, which + index), own.__next__)
        np.testing.assert_array_equal(one[0], latent[index])
        assert alone.efforts == together.efforts[index : index + 1]


def test_the_denoiser_is_told_picture_and_time_of_every_item():
    table, seen = compiled(5), []

    def model(latent, timestep, which):
        assert latent.dtype == timestep.dtype == np.float32
        assert len(latent) == len(timestep) == len(which)
        seen.append((timestep.tolist(), which.tolist()))
        return curved(latent, timestep)

    player = Picard(window=2, tolerance=0).over(table)
    player.play(model, draws((2, 4, 3, 3)))
    times = [np.float32(op.t) for op in table.ops if isinstance(op, Eval)]
    assert seen[0] == ([*times[:2], *times[:2]], [0, 0, 1, 1])
    assert seen[-1] == ([times[4]] * 2, [0, 1])
    assert player.efforts[0].evaluations == sum(len(which) for _, which in seen) / 2
    assert player.efforts[0].iterations == len(seen) == 5


def test_right_guesses_are_exact_and_accepted_at_once():
    player = Picard(window=64, tolerance=0).over(compiled(40, previews=False))
    player.play(lambda latent, *_: np.full_like(latent, 0.25), draws(SHAPE))
    assert [effort.iterations for effort in player.efforts] == [2, 2, 2]  # the first output is guessed as 0; the rest repeat it


def test_a_start_from_an_earlier_run_saves_iterations():
    table, model = compiled(60), Mixture(SHAPE[1:])
    options = Picard(window=60, tolerance=0.02)
    cold = options.over(table)
    cold.play(model, draws(SHAPE))
    warm = options.over(table, cold.outputs)
    assert distance(warm.play(model, draws(SHAPE)), cold.play(model, draws(SHAPE))) < 0.03
    model.means += 0.1 * np.random.default_rng(1).standard_normal(model.means.shape)  # a variation: another prompt, a little
    again, other = options.over(table, cold.outputs), options.over(table)
    for player in (again, other):
        assert distance(player.play(model, draws(SHAPE)), table.play(model, draws(SHAPE))) < 0.02
    counts = [sum(effort.iterations for effort in player.efforts) for player in (warm, again, other)]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2]


def test_a_start_of_another_shape_is_refused():
    player = EXACT.over(compiled(4), np.zeros((5, *SHAPE), np.float32))
    with pytest.raises(UnsupportedError, match=r"must be \[4, 3, 4, 3, 5\], got \[5, 3, 4, 3, 5\]"):
        player.play(curved, draws(SHAPE))


def given_table():
    """From a given image under noise, with rows for what a mask keeps; as image to image and inpainting have it."""
    ops = (
        Draw(),
        GivenLatent(name="image"),
        Eval(t=800.0, row=(0.8, 0.6), kept=(0.8, 0.6), preview=(1.7, -1.3)),
        Eval(t=400.0, row=(0.1, 0.7, 0.4), kept=(0.4, 0.9), preview=(1.1, -0.5)),
        Eval(t=100.0, row=(0.1, 0.8, -0.2, 0.3), kept=(0.1, 1.0), preview=(1.0, -0.1)),
        Emit(row=(0.0, 0.9, 0.1, 0.1, -0.2), kept=(0.0, 1.0)),
    )
    return Table(provenance=small.table().provenance, ops=ops)


@pytest.mark.parametrize("masked", [False, True])
def test_a_given_latent_and_a_mask(masked):
    table, image = given_table(), {"image": np.linspace(-1, 1, 180, dtype=np.float32).reshape(SHAPE)}
    mask = np.arange(5) < 2 if masked else None
    want = table.play(curved, draws(SHAPE), given=image, mask=mask)
    np.testing.assert_allclose(EXACT.over(table).play(curved, draws(SHAPE), given=image, mask=mask), want, atol=2e-6)
    if masked:
        np.testing.assert_allclose(want[..., 2:], image["image"][..., 2:], atol=1e-6)


def test_what_is_missing_for_it_is_said():
    with pytest.raises(UnsupportedError, match="given latent named 'image'"):
        EXACT.over(given_table()).play(curved, draws(SHAPE))
    with pytest.raises(UnsupportedError, match="no rows for what a mask keeps"):
        EXACT.over(compiled(3)).play(curved, draws(SHAPE), mask=np.ones(5, bool))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_denoiser_is_named_with_its_step(bad):
    table = compiled(9)
    times = [op.t for op in table.ops if isinstance(op, Eval)]

    def broken(latent, timestep, _):
        late = (timestep < (times[3] + times[4]) / 2)[:, None, None, None]
        return np.where(late, np.float32(bad), curved(latent, timestep))

    for tolerance in (0, 10):
        with pytest.raises(UnsupportedError, match=r"step 5 of 9 \(t = .*\): the denoiser returned NaN or infinity.*fp16"):
            Picard(window=4, tolerance=tolerance).over(table).play(broken, draws(SHAPE))


def test_a_wild_guess_that_breaks_the_denoiser_is_only_taken_back():
    table, calls = compiled(9), []

    def fragile(latent, timestep, which):
        calls.append(len(latent))
        output = curved(latent, timestep)
        if len(calls) == 1:
            output[np.arange(len(which)) % 9 > 1] = np.nan
        return output

    latent = EXACT.over(table).play(fragile, draws(SHAPE))
    assert distance(latent, table.play(curved, draws(SHAPE))) < 3e-6


def test_another_shape_is_named():
    with pytest.raises(UnsupportedError, match=r"denoiser returned shape \[12, 4, 3\]; the latent has \[12, 4, 3, 5\]"):
        EXACT.over(compiled(4)).play(lambda latent, *_: latent[..., 0], draws(SHAPE))


def test_progress_is_told_and_may_be_cancelled():
    table, model, seen = compiled(30), Mixture(SHAPE[1:]), []
    player = Picard(window=20).over(table)
    player.play(model, draws(SHAPE), seen.append)
    assert len(seen) == max(effort.iterations for effort in player.efforts)
    assert [step.index for step in seen] == sorted(step.index for step in seen)
    assert (seen[-1].index, seen[-1].total) == (30, 30)
    assert all(step.latent.shape == step.preview.shape == SHAPE for step in seen)
    plain = []
    table.play(model, draws(SHAPE), plain.append)
    assert distance(seen[-1].preview, plain[-1].preview) < 0.05

    def cancel(_):
        raise Cancelled

    with pytest.raises(Cancelled):
        player.play(model, draws(SHAPE), cancel)
    assert player.efforts == ()


def test_without_previews_none_is_told():
    seen = []
    EXACT.over(compiled(3, previews=False)).play(curved, draws(SHAPE), seen.append)
    assert {step.preview for step in seen} == {None}


def test_a_buffer_that_is_used_again_is_no_trap():
    table, output = compiled(9), np.empty((0,), np.float32)

    def reusing(latent, timestep, _):
        nonlocal output
        output = output if output.shape == latent.shape else np.empty_like(latent)
        output[:] = curved(latent, timestep)
        return output

    np.testing.assert_array_equal(EXACT.over(table).play(reusing, draws(SHAPE)), EXACT.over(table).play(curved, draws(SHAPE)))


@pytest.mark.parametrize(
    "options",
    [{"window": 0}, {"window": 1.5}, {"tolerance": -1e-9}, {"tolerance": float("nan")}, {"anderson": -1}, {"windows": 2}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValidationError):
        Picard(**options)


def test_only_tables_are_played():
    with pytest.raises(UnsupportedError, match="only compiled samplers"):
        Picard().over(object())


def test_a_sampler_that_corrects_is_not_played_side_by_side():
    ops = (Draw(), Scaled(row=(1,), over=(1,), under=(1,), power=1), Emit(row=(0, 1)))
    with pytest.raises(UnsupportedError, match="corrects by how large the model's answers are"):
        Picard().over(Table(format=4, provenance=small.table().provenance, ops=ops))


def test_it_is_no_kind_of_sampler_file(tmp_path):
    with pytest.raises(BundleError, match="a way to play a table"):
        Picard.load(tmp_path / "x.json")
