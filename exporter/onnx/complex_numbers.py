"""Complex numbers as pairs of real ones while a part is traced: ONNX's runtimes compute with real ones alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import SymInt, Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree


class Pairs:
    """A complex tensor: `parts`, (…, 2), has real and imaginary parts in its last axis."""

    def __init__(self, parts: Tensor) -> None:
        self.parts = parts

    @property
    def shape(self) -> torch.Size:
        """Of the complex tensor."""
        return self.parts.shape[:-1]

    @property
    def ndim(self) -> int:
        """Its axes."""
        return self.parts.ndim - 1

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.parts.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the complex tensor."""
        return torch.complex128 if self.parts.dtype == torch.float64 else torch.complex64

    @property
    def real(self) -> Tensor:
        """Its real part."""
        return self.parts[..., 0]

    @property
    def imag(self) -> Tensor:
        """Its imaginary part."""
        return self.parts[..., 1]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return functools.partial(_computed, name, self)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - whatever is written between brackets
        return _computed("getitem", self, index)

    def __setitem__(self, index: Any, value: Any) -> None:  # noqa: ANN401
        _computed("setitem", self, index, value)

    def __mul__(self, other: Any) -> Any:  # noqa: ANN401 - a number or a tensor
        return _computed("mul", self, other)

    __rmul__ = __mul__

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        return _computed(func.__name__, *args, **(kwargs or {}))


class _RealPairs(TorchFunctionMode):
    """Within it every complex tensor that is computed with is a pair of real ones."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name in _MADE:
            return Pairs(_MADE[name](*args, **kwargs))
        if name == "zeros" and (real := _REAL.get(kwargs.get("dtype"))):
            size = args[0] if len(args) == 1 and not isinstance(args[0], int | SymInt) else args
            kwargs["dtype"] = real
            return Pairs(torch.zeros(*size, 2, **kwargs))
        if name == "__get__" or not any(map(_is_complex, pytree.tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        given, named = pytree.tree_map_only(Tensor, _paired, (list(args), kwargs))
        return _computed(name, *given, **named)


@contextmanager
def in_real_pairs(module: nn.Module) -> Iterator[None]:
    """Have a module compute with real numbers alone while it is traced.

    Raises:
        NotImplementedError: within its `forward`, of what cannot be computed so.

    """
    forward = module.forward

    @functools.wraps(forward)
    def run(*inputs: Tensor) -> Any:  # noqa: ANN401 - the module's own
        with _RealPairs():
            return forward(*inputs)

    vars(module)["forward"] = run
    try:
        yield
    finally:
        del vars(module)["forward"]


def _is_complex(value: object) -> bool:
    return isinstance(value, Pairs) or (isinstance(value, Tensor) and value.is_complex())


def _paired(tensor: Tensor) -> Tensor | Pairs:
    return Pairs(torch.view_as_real(tensor)) if tensor.is_complex() else tensor


def _computed(name: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """What a function of torch gives, of which some arguments are complex."""
    found = _FUNCTIONS.get(name.strip("_"))
    if found is None:
        raise NotImplementedError(f"{name} of complex numbers")
    return found(*args, **kwargs)


def _axis(axis: int) -> int:
    """An axis of a complex tensor among its parts'."""
    return axis if axis >= 0 else axis - 1


def _product(one: Any, other: Any) -> Pairs:  # noqa: ANN401 - of which one at least is complex
    if not isinstance(one, Pairs) or not isinstance(other, Pairs):
        own, by = (one, other) if isinstance(one, Pairs) else (other, one)
        return Pairs(own.parts * (by[..., None] if isinstance(by, Tensor) and by.ndim else by))
    (a, b), (c, d) = one.parts.unbind(-1), other.parts.unbind(-1)
    return Pairs(torch.stack([a * c - b * d, a * d + b * c], -1))


def _item(own: Pairs, index: Any) -> Pairs:  # noqa: ANN401
    each = index if isinstance(index, tuple) else (index,)
    return Pairs(own.parts[(*each, slice(None)) if any(one is Ellipsis for one in each) else index])


def _put(own: Pairs, index: Any, value: Pairs) -> None:  # noqa: ANN401
    each = index if isinstance(index, tuple) else (index,)
    own.parts[(*each, slice(None)) if any(one is Ellipsis for one in each) else index] = value.parts


def _gathered(own: Pairs, dim: int, index: Tensor) -> Pairs:
    return Pairs(own.parts.gather(_axis(dim), index[..., None].expand(*index.shape, 2)))


def _moved(own: Pairs, *where: Any, **options: Any) -> Pairs:  # noqa: ANN401
    """Elsewhere; of what type they are stays."""
    return Pairs(own.parts.to(*(each for each in where if not isinstance(each, torch.dtype)), **options))


def _kept(name: str) -> Callable[..., Pairs]:
    """A function that changes no length."""
    return lambda own: Pairs(getattr(own.parts, name)())


def _shaped(name: str, last: int) -> Callable[..., Pairs]:
    """A function that takes lengths, one after the other or as one list."""

    def shaped(own: Pairs, *lengths: Any) -> Pairs:  # noqa: ANN401
        return Pairs(getattr(own.parts, name)(*pytree.tree_leaves(lengths), last))

    return shaped


def _along(name: str) -> Callable[..., Any]:
    """A function along one axis, which comes last among its arguments."""

    def along(own: Pairs, *args: Any, dim: int | None = None) -> Any:  # noqa: ANN401
        before = list(args)
        behind = len(before) > (name in ("split", "chunk"))  # which take lengths first
        axis: Any = dim if dim is not None else before.pop() if behind else 0
        found = getattr(own.parts, name)(*before, dim=_axis(axis))
        return tuple(map(Pairs, found)) if isinstance(found, tuple | list) else Pairs(found)

    return along


def _joined(name: str) -> Callable[..., Pairs]:
    """A function of several tensors."""
    return lambda each, dim=0: Pairs(getattr(torch, name)([own.parts for own in each], dim=_axis(dim)))


#: Type of a complex tensor → of its parts.
_REAL: Mapping[Any, torch.dtype] = {torch.complex64: torch.float32, torch.complex128: torch.float64}
#: What makes complex tensors of real ones, as parts.
_MADE: Mapping[str, Callable[..., Tensor]] = {
    "view_as_complex": lambda parts: parts,
    "polar": lambda length, angle: torch.stack([length * torch.cos(angle), length * torch.sin(angle)], -1),
    "complex": lambda real, imaginary: torch.stack([real, imaginary], -1),
}
#: What is computed with them, by its name in torch without underscores.
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "view_as_real": lambda own: own.parts,
    "mul": _product,
    "rmul": _product,
    "getitem": _item,
    "setitem": _put,
    "gather": _gathered,
    "to": _moved,
    "size": lambda own, *axis: own.shape[axis[0]] if axis else own.shape,
    "flatten": lambda own, start_dim=0, end_dim=-1: Pairs(own.parts.flatten(_axis(start_dim), _axis(end_dim))),
    "pad": lambda own, sides, mode="constant", value=None: Pairs(nn.functional.pad(own.parts, (0, 0, *sides), mode, value)),
    "transpose": lambda own, one, other: Pairs(own.parts.transpose(_axis(one), _axis(other))),
    **{name: _kept(name) for name in ("clone", "contiguous", "detach")},
    **{name: _shaped(name, 2) for name in ("view", "reshape", "expand")},
    "repeat": _shaped("repeat", 1),
    **{name: _along(name) for name in ("split", "chunk", "unbind", "unsqueeze", "squeeze")},
    **{name: _joined(name) for name in ("cat", "concat", "stack")},
}
