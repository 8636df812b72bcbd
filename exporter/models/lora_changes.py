"""What a LoRA adds to one layer's weight and bias, in each of the ways that are around: all are sums, so they fuse.

After LyCORIS (lycoris/modules) and ComfyUI (comfy/weight_adapter), whose names the tensors have. Alpha over rank scales every
product of factors; a whole difference has no rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engines.lora.factors import UnfitError

Pieces = Mapping[str, Tensor]


def weight(pieces: Pieces, before: Tensor, strength: float | None = None) -> Tensor | None:
    """The change of a layer's weight, float64, in its shape; None where only its bias changes.

    Args:
        pieces: what the file has of the layer: `down`, `up`, `mid`, `alpha`, `scalar`, `hada_*`, `lokr_*`, `diff`, `w_norm`,
            `dora_scale`, `magnitude`.
        before: the layer's weight.
        strength: alpha over rank where the file keeps it elsewhere, as peft does.

    Raises:
        UnfitError: a piece is missing, or of another shape.

    """
    try:
        return _weight(pieces, before, strength)
    except UnfitError:
        raise
    except (RuntimeError, IndexError, ValueError, ZeroDivisionError) as error:  # arithmetic on pieces of any shape
        shapes = " and ".join(f"{name} {list(value.shape)}" for name, value in sorted(pieces.items()) if value.ndim)
        raise UnfitError(f"has {shapes}, which do not make the model's weight {list(before.shape)}") from error


def _weight(pieces: Pieces, before: Tensor, strength: float | None) -> Tensor | None:
    own = {name: value.double() for name, value in pieces.items()}
    products = [make(own, before, strength) for make in (_lora, _loha, _lokr)]
    # LyCORIS learns it beside the factors (use_scalar), and older versions write it out.
    factor = own["scalar"].reshape(()) if "scalar" in own else 1.0
    changes = [_whole(own), *(product if product is None else product * factor for product in products)]
    changes = [change for change in changes if change is not None]
    if not changes:
        if leftover := own.keys() - {"diff_b", "b_norm"}:
            raise UnfitError(f"has {' and '.join(sorted(leftover))} alone")
        return None
    total = sum(change.reshape(before.shape) for change in changes)
    return _decomposed(own, before.double(), torch.as_tensor(total))


def bias(pieces: Pieces, strength: float | None = None) -> Tensor | None:
    """The change of a layer's bias, float64; None where there is none. `strength` as of `weight`, of peft's `lora_bias`."""
    found = [pieces[name].double() for name in ("diff_b", "b_norm") if name in pieces]
    found += [pieces["up_bias"].double() * _strength(pieces, len(pieces["down"]), strength)] if "up_bias" in pieces else []
    return found[0] if found else None


def _whole(own: Pieces) -> Tensor | None:
    return own.get("diff", own.get("w_norm"))


def _strength(own: Pieces, rank: int, strength: float | None = None) -> float:
    return float(own["alpha"]) / rank if "alpha" in own else 1.0 if strength is None else strength


def _lora(own: Pieces, before: Tensor, strength: float | None) -> Tensor | None:
    if not own.keys() & {"down", "up", "mid"}:
        return None
    down, up = _both(own, "down", "up")
    rank, shape = len(down) if down.ndim else 0, [*before.shape]
    if "mid" in own:
        middle = own["mid"]
        if middle.shape[:2] != (up.shape[1], rank):  # which einsum would not see where one of them is 1
            raise UnfitError(f"has A {[*down.shape]}, a middle {[*middle.shape]} and B {[*up.shape]}, which do not fit")
        change = torch.einsum("op,pqkl,qi->oikl", up.flatten(1), middle, down.flatten(1))
    else:
        # A layer may be linear in one and a convolution of one pixel in the other.
        inside, wanted = ([size for size in [*each.shape[1:]] if size != 1] for each in (down, before))
        if not (down.ndim > 1 and up.ndim > 1 and inside == wanted and up.numel() == shape[0] * rank and up.shape[0] == shape[0]):
            told = f"has A {[*down.shape]} and B {[*up.shape]}, which do not make the model's weight {shape}"
            raise UnfitError(told)
        change = up.flatten(1) @ down.flatten(1)
    return change * _strength(own, rank, strength)


def _loha(own: Pieces, _before: Tensor, strength: float | None) -> Tensor | None:
    if not any(name.startswith("hada_") for name in own):
        return None
    halves = []
    for half in "12":
        a, b = _both(own, f"hada_w{half}_a", f"hada_w{half}_b")
        halves.append(_tucker(own[f"hada_t{half}"], a, b) if f"hada_t{half}" in own else _product(a, b))
    if halves[0].shape != halves[1].shape:
        raise UnfitError(f"has halves {[*halves[0].shape]} and {[*halves[1].shape]}, which do not fit")
    return halves[0] * halves[1] * _strength(own, len(own["hada_w1_b"]), strength)


def _lokr(own: Pieces, _before: Tensor, strength: float | None) -> Tensor | None:
    if not any(name.startswith("lokr_") for name in own):
        return None
    rank, factors = None, []
    for half in "12":
        if f"lokr_w{half}" in own:
            factors.append(own[f"lokr_w{half}"])
            continue
        a, b = _both(own, f"lokr_w{half}_a", f"lokr_w{half}_b")
        rank = len(b)
        factors.append(_tucker(own["lokr_t2"], a, b) if half == "2" and "lokr_t2" in own else _product(a, b))
    first, second = factors
    first = first.reshape(*first.shape, *[1] * (second.ndim - first.ndim))
    # Whole factors have no rank; LyCORIS leaves their alpha out too, and peft does not.
    whole = 1.0 if strength is None else strength
    return torch.kron(first.contiguous(), second.contiguous()) * (_strength(own, rank, strength) if rank else whole)


def _product(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim != 2 or b.ndim < 2 or a.shape[1] != len(b):
        raise UnfitError(f"has factors {[*a.shape]} and {[*b.shape]}, which do not fit")
    return a @ b.flatten(1)


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    if core.shape[:2] != (len(a), len(b)):
        raise UnfitError(f"has a core {[*core.shape]} and factors {[*a.shape]} and {[*b.shape]}, which do not fit")
    return torch.einsum("ijkl,jr,ip->prkl", core, b, a)


def _both(own: Pieces, first: str, second: str) -> tuple[Tensor, Tensor]:
    if missing := [name for name in (first, second) if name not in own]:
        raise UnfitError(f"has no {' and no '.join(missing)}")
    return own[first], own[second]


def _decomposed(own: Pieces, before: Tensor, change: Tensor) -> Tensor:
    """DoRA: the changed weight brought to lengths of its own, by outputs (peft, and a column) or by inputs (kohya's row)."""
    if "magnitude" not in own and "dora_scale" not in own:
        return change
    after, outputs = before + change, len(before)
    lengths = own["magnitude"].reshape(-1) if "magnitude" in own else own["dora_scale"]
    by_output = "magnitude" in own or lengths.ndim < 2 or len(lengths) != 1 or outputs == 1
    axes = [axis for axis in range(before.ndim) if axis != (0 if by_output else 1)]
    if lengths.numel() != before.shape[0 if by_output else 1]:
        raise UnfitError(f"has {lengths.numel()} lengths, which the model's weight {[*before.shape]} has not")
    shape = [-1 if axis not in axes else 1 for axis in range(before.ndim)]
    return after * (lengths.reshape(shape) / torch.linalg.vector_norm(after, dim=axes, keepdim=True)) - before
