"""What a LoRA's file has of one layer → two factors, A and B, whose product is the change of the layer's weight.

Every way of changing a weight that is of low rank by its making has such factors: LoRA and LoCon as they stand, Tucker's by its
middle, LoHa as the products of all pairs of columns, LoKr by Kronecker products of its smaller factor with either half of
the larger. What is not of low rank is refused by its name: it can be fused, by the sums of `exporter.models.lora_changes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Pieces = Mapping[str, np.ndarray]
#: A, (rank, inputs…), and B, (outputs, rank).
Pair = tuple[np.ndarray, np.ndarray]
#: A piece of a file → what a change is called that has no two small factors.
_FULL = {
    "diff": "a difference of whole weights",
    "diff_b": "a difference of biases",
    "w_norm": "a change of norms",
    "b_norm": "a change of norms",
    "up_bias": "a difference of biases",
    "dora_scale": "DoRA",
    "magnitude": "DoRA",
}


class UnfitError(ValueError):
    """Pieces that do not make the layer's weight, or are of no low rank; says how."""


def factors(pieces: Pieces, shape: Sequence[int], strength: float | None = None) -> Pair:
    """A of the shape (rank, *shape[1:]) and B (shape[0], rank), float32, whose product is the change of the weight.

    Args:
        pieces: by the names of `spelling.split`: `down`, `up`, `mid`, `alpha`, `hada_*`, `lokr_*` …
        shape: of the weight, outputs and inputs first.
        strength: alpha over rank where the file keeps it elsewhere, as peft does.

    Raises:
        UnfitError: a piece is missing, of another shape, or makes a change that is not of low rank.

    """
    if whole := [called for piece, called in _FULL.items() if piece in pieces]:
        raise UnfitError(f"is {whole[0]}, which is not of low rank, so it can only be fused: name the file in model.loras")
    try:
        found = [pair for make in (_lora, _loha, _lokr) if (pair := make(pieces, shape, strength))]
        factor = float(pieces["scalar"].reshape(-1)[0]) if "scalar" in pieces else 1.0
    except UnfitError:
        raise
    except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:  # arithmetic on pieces of any shape
        raise _unfit(pieces, shape) from error
    if len(found) != 1:
        raise UnfitError(f"has {' and '.join(sorted(pieces))}, which are no change of a weight")
    a, b = found[0]
    if a.shape != (len(a), *shape[1:]) or b.shape != (shape[0], len(a)):
        raise _unfit(pieces, shape)
    return np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b * factor, np.float32)


def _unfit(pieces: Pieces, shape: Sequence[int]) -> UnfitError:
    told = " and ".join(f"{name} {list(value.shape)}" for name, value in sorted(pieces.items()) if value.ndim)
    return UnfitError(f"has {told}, which do not make the model's weight {list(shape)}")


def _alpha(pieces: Pieces, rank: int, strength: float | None) -> float:
    return float(pieces["alpha"].reshape(-1)[0]) / rank if "alpha" in pieces else 1.0 if strength is None else strength


def _lora(pieces: Pieces, shape: Sequence[int], strength: float | None) -> Pair | None:
    if not pieces.keys() & {"down", "up", "mid"}:
        return None
    down, up = _both(pieces, "down", "up")
    rank = len(down)
    flat = up.reshape(shape[0], -1)
    if "mid" in pieces:
        down = np.einsum("pqkl,qi->pikl", pieces["mid"], down.reshape(rank, -1))
    inside = [size for size in down.shape[1:] if size != 1]
    if inside != [size for size in shape[1:] if size != 1]:  # linear in one, and a convolution of one pixel in the other
        raise _unfit(pieces, shape)
    return down.reshape(len(down), *shape[1:]), flat * _alpha(pieces, rank, strength)


def _loha(pieces: Pieces, shape: Sequence[int], strength: float | None) -> Pair | None:
    """(A₁B₁) ⊙ (A₂B₂): the rows of one half times those of the other, and so the columns."""
    if not any(name.startswith("hada_") for name in pieces):
        return None
    halves: list[Pair] = []
    for half in "12":
        a, b = _both(pieces, f"hada_w{half}_a", f"hada_w{half}_b")
        if (core := pieces.get(f"hada_t{half}")) is None:
            halves.append((b.reshape(len(b), -1), a))
        else:  # (rank, rank, k, l), whose second axis meets the inputs
            halves.append((np.einsum("ijkl,jr->irkl", core, b).reshape(len(core), -1), a.T))
    (first, one), (second, two) = halves
    a = (first[:, None] * second[None]).reshape(-1, *shape[1:])
    b = (one[:, :, None] * two[:, None, :]).reshape(len(one), -1)
    return a, b * _alpha(pieces, len(pieces["hada_w1_b"]), strength)


def _lokr(pieces: Pieces, shape: Sequence[int], strength: float | None) -> Pair | None:
    """W₁ ⊗ W₂, of which W₂ (or W₁) is a product: each of its halves takes one side of the other."""
    if not any(name.startswith("lokr_") for name in pieces):
        return None
    (first, first_pair), (second, second_pair) = (_factor(pieces, half) for half in "12")
    scale = next((_alpha(pieces, len(pair[0]), strength) for pair in (second_pair, first_pair) if pair), 1.0)
    if second_pair:  # (out, rank) and (rank, in, …)
        inner, outer = second_pair
        if first.shape[1] <= first.shape[0]:  # whichever makes the smaller rank
            a, b = _kron(np.eye(first.shape[1], dtype=np.float32), inner), np.kron(first, outer)
        else:
            a, b = _kron(first, inner), np.kron(np.eye(first.shape[0], dtype=np.float32), outer)
    elif first_pair:
        inner, outer = first_pair
        flat = second.reshape(len(second), -1)
        if flat.shape != second.shape and flat.shape[1] != second.shape[1]:
            return _whole(pieces, shape)
        a, b = np.kron(inner, np.eye(second.shape[1], dtype=np.float32)), np.kron(outer, flat)
    else:
        return _whole(pieces, shape)
    return a.reshape(len(a), *shape[1:]), b * scale


def _whole(pieces: Pieces, shape: Sequence[int]) -> Pair:
    told = f"is a LoKr with whole factors ({' and '.join(sorted(pieces))}), whose change of the weight {list(shape)}"
    raise UnfitError(f"{told} is not of low rank, so it can only be fused: name the file in model.loras")


def _factor(pieces: Pieces, half: str) -> tuple[np.ndarray, Pair | None]:
    """One factor of LoKr, and where it is a product its halves."""
    if (whole := pieces.get(f"lokr_w{half}")) is not None:
        return whole, None
    a, b = _both(pieces, f"lokr_w{half}_a", f"lokr_w{half}_b")
    if half == "2" and (core := pieces.get("lokr_t2")) is not None:
        inner, outer = np.einsum("ijkl,jr->irkl", core, b), a.T
    else:
        inner, outer = b, a
    return np.tensordot(outer, inner, 1), (inner, outer)


def _kron(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Kronecker product of the first two axes; the last ones are those of `right`."""
    return np.kron(left.reshape(*left.shape, *[1] * (right.ndim - 2)), right)


def _both(pieces: Pieces, first: str, second: str) -> Pair:
    if missing := [name for name in (first, second) if name not in pieces]:
        raise UnfitError(f"has no {' and no '.join(missing)}")
    return pieces[first], pieces[second]
