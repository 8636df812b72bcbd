import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.samplers import ode
from engines.samplers.ode import PAIRS, Ode
from tests.engines.samplers import gaussians

FEW = 8


@pytest.fixture(scope="module")
def reference():
    """First noise of a few pictures, and where the exact flow takes it; the last noise taken out along the last slope."""
    process = gaussians.process()
    start, end = np.sqrt(np.expm1([process.noisy, process.clean]))
    first = next(gaussians.draws(process, FEW))
    y, slope = gaussians.flow(first * np.sqrt(1 + start**2), start, end)
    return first, gaussians.latents(y - slope)


def solved(first, prediction="epsilon", **options):
    process = gaussians.process(prediction)
    model = gaussians.Model(process, len(first))
    return Ode(process=process, **options).play(model, lambda: first), model


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_flow_is_followed(reference, prediction, pair):
    first, wanted = reference
    found, _ = solved(first, prediction, pair=pair, relative=1e-5, absolute=1e-5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_mean_and_covariance():
    process = gaussians.process()
    found, _ = solved(next(gaussians.draws(process, 300)), relative=1e-3, absolute=1e-3)
    size, chance = gaussians.off(found)
    assert chance < 4, size


EQUAL_STEPS = [("bogacki_shampine", (20, 40, 80), 3), ("dormand_prince", (16, 22, 32), 5)]


@pytest.mark.parametrize(("pair", "sizes", "wanted"), EQUAL_STEPS)
def test_order_of_convergence_with_equal_steps(reference, pair, sizes, wanted, monkeypatch):
    """Errors as large as may be, and steps that neither grow nor shrink: the pair alone."""
    monkeypatch.setattr(ode, "_GROW", 1.0)
    monkeypatch.setattr(ode, "_SHRINK", 1.0)
    first, exact = reference
    errors = []
    for size in sizes:
        monkeypatch.setattr(ode, "_FIRST", 1 / size)
        found, model = solved(first, pair=pair, relative=10, absolute=10)
        assert set(model.evaluations) == {1 + size * len(PAIRS[pair].b)}
        errors.append(gaussians.size(found - exact))
    assert gaussians.order(sizes, errors) == pytest.approx(wanted, abs=0.2)


def test_the_error_follows_the_tolerance(reference):
    first, exact = reference
    tolerances = (1e-3, 1e-4, 1e-5)
    errors = [gaussians.size(solved(first, relative=size, absolute=size)[0] - exact) for size in tolerances]
    assert -gaussians.order(tolerances, errors) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize(("pair", "name"), [("bogacki_shampine", "RK23"), ("dormand_prince", "RK45")])
def test_coefficients_are_scipys(pair, name):
    scipy = pytest.importorskip("scipy.integrate")
    theirs, ours = getattr(scipy, name), PAIRS[pair]
    np.testing.assert_allclose(ours.c, theirs.C, rtol=1e-15)
    np.testing.assert_allclose(ours.b, theirs.B, rtol=1e-15)
    np.testing.assert_allclose(ours.e, theirs.E, rtol=1e-15)
    for stage, row in enumerate(ours.a, 1):
        np.testing.assert_allclose(row, theirs.A[stage, :stage], rtol=1e-15)
    assert ours.order == theirs.error_estimator_order + 1


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_order_conditions(pair):
    assert sum(pair.b) == pytest.approx(1)
    assert sum(pair.e) == pytest.approx(0)
    for power in range(1, pair.order):
        assert sum(b * c**power for b, c in zip(pair.b, pair.c, strict=True)) == pytest.approx(1 / (power + 1))
    for row, share in zip(pair.a, pair.c[1:], strict=True):
        assert sum(row) == pytest.approx(share)


def test_evaluations_are_those_of_the_stages(reference):
    first, _ = reference
    for pair, stages in (("bogacki_shampine", 3), ("dormand_prince", 6)):
        _, model = solved(first, pair=pair)
        assert set((model.evaluations - 1) % stages) == {0}
        assert model.evaluations.max() < 60


def test_a_picture_does_not_depend_on_its_batch(reference):
    first, _ = reference
    together, model = solved(first)
    for index in range(2):
        alone, one = solved(first[index : index + 1])
        np.testing.assert_allclose(alone[0], together[index], atol=1e-6)
        assert one.evaluations == model.evaluations[index]


def test_finished_pictures_drop_out():
    process = gaussians.process()
    first = np.stack([next(gaussians.draws(process, 1))[0], np.full(gaussians.SHAPE, 20, np.float32)])
    _, model = solved(first)
    assert model.evaluations[0] != model.evaluations[1]
    assert {len(which) for which in model.asked} == {1, 2}


def test_what_cannot_be_reached_is_said(reference):
    first, _ = reference
    with pytest.raises(UnsupportedError, match=r"picture 1 is not finished after 5 steps, \d of them.*max_steps"):
        solved(first, relative=1e-9, absolute=1e-9, max_steps=5)
