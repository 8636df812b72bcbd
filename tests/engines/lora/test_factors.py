"""Two factors of every way in which files change a weight: their product is what fusing adds."""

import numpy as np
import pytest

from engines.lora import factors

torch = pytest.importorskip("torch", reason="fusing, with which the factors are compared, needs torch")

from exporter.models import lora_changes  # noqa: E402 - only where torch is
from tests.exporter.models.test_lora_formats import ALPHA, CASES, A, B, r  # noqa: E402

#: Of the ways that fusing knows, those that are of no low rank.
WHOLE = {"lokr", "lokr of a convolution", "a scalar beside lokr", "full", "norm"}
SHAPES = {16: (16, 16), 8: (16, 8, 3, 3)}
WORDS = {"lora_down.weight": "down", "lora_up.weight": "up", "lora_mid.weight": "mid"}


def pieces_of(case):
    _, layer, pieces, _ = CASES[case]
    shape = (8,) if "norm" in layer else (16, 8, 3, 3) if "conv" in layer else (16, 16)
    return {WORDS.get(name, name): value.float() for name, value in pieces.items()}, shape


def arrays(pieces):
    return {name: value.numpy() for name, value in pieces.items()}


@pytest.mark.parametrize("case", [case for case in CASES if case not in WHOLE])
def test_the_product_is_what_fusing_adds(case):
    pieces, shape = pieces_of(case)
    a, b = factors.factors(arrays(pieces), shape)
    wanted = lora_changes.weight(pieces, torch.zeros(shape)).numpy()
    assert (a.dtype, b.dtype, len(a)) == (np.float32, np.float32, b.shape[1])
    np.testing.assert_allclose((b @ a.reshape(len(a), -1)).reshape(shape), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", sorted(WHOLE))
def test_what_is_of_no_low_rank_is_refused_by_name(case):
    pieces, shape = pieces_of(case)
    with pytest.raises(factors.UnfitError, match="of low rank, so it can only be fused"):
        factors.factors(arrays(pieces), shape)


def test_dora_is_refused_by_name():
    pieces = {"down": A, "up": B, "dora_scale": r(16), **ALPHA}
    with pytest.raises(factors.UnfitError, match="is DoRA, which is not of low rank"):
        factors.factors(arrays(pieces), (16, 16))


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ({"down": A}, "has no up"),
        ({"down": r(2, 20), "up": B}, r"has down \[2, 20\] and up \[16, 2\], which do not make the model's weight \[16, 16\]"),
        ({"down": A, "up": r(12, 2)}, r"up \[12, 2\]"),
        ({"down": A, "up": r(16, 3)}, r"up \[16, 3\]"),
        ({"alpha": torch.tensor(1.0)}, "are no change of a weight"),
        ({"hada_w1_a": r(16, 2), "hada_w1_b": r(2, 16), "hada_w2_a": r(16, 2)}, "has no hada_w2_b"),
        ({"down": torch.tensor(1.0), "up": B}, "do not make"),
    ],
)
def test_what_does_not_fit_says_how(pieces, told):
    with pytest.raises(factors.UnfitError, match=told):
        factors.factors(arrays(pieces), (16, 16))


def test_linear_and_convolution_of_one_pixel_are_the_same():
    a, b = factors.factors(arrays({"down": A, "up": B}), (16, 16, 1, 1))
    assert a.shape == (2, 16, 1, 1)
    one, other = factors.factors(arrays({"down": A[:, :, None, None], "up": B[:, :, None, None]}), (16, 16))
    assert np.array_equal(one, a[:, :, 0, 0])
    assert np.array_equal(other, b)


def test_strength_counts_where_the_file_has_no_alpha():
    _, plain = factors.factors(arrays({"down": A, "up": B}), (16, 16), strength=0.5)
    _, own = factors.factors(arrays({"down": A, "up": B, **ALPHA}), (16, 16), strength=0.5)
    assert np.array_equal(plain, 0.5 * B.numpy())
    assert np.array_equal(own, 2 * B.numpy())


@pytest.mark.parametrize("wide", [True, False])
def test_lokr_takes_the_smaller_rank(wide):
    first = r(2, 8) if wide else r(8, 2)
    pieces = {"lokr_w1": first, "lokr_w2_a": r(4, 2), "lokr_w2_b": r(2, 4, seed=1)}
    shape = (8, 32) if wide else (32, 8)
    a, b = factors.factors(arrays(pieces), shape)
    assert len(a) == 4
    wanted = lora_changes.weight(pieces, torch.zeros(shape)).numpy()
    np.testing.assert_allclose(b @ a, wanted, rtol=1e-4, atol=1e-6)
