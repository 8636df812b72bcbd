"""Texts that a pipeline's own code fills up to a length or to another text's, while how long they are is open."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import SymInt, Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from exporter.families.tracing.following.open_lengths import largest, reaches, smallest

#: Whose code asks whether there is something to fill.
_ASKING = "diffusers.pipelines"
#: Where a tensor that stands for zeros keeps along which axis they fill something up, and how many there are.
_KEPT = "_fills"


def _by_a_pipeline() -> bool:
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith(_ASKING)  # noqa: SLF001 - of who compares


def _filling(usual: Callable[[Any, Any], Any], *, below: bool) -> Callable[[Any, Any], Any]:
    """A comparison of lengths, of which one may be filled up to the other; `below`: whether it is that the first is shorter."""

    def compare(self: SymInt, other: Any) -> Any:  # noqa: ANN401
        if _by_a_pipeline() and isinstance(other, int | SymInt):
            short, long = (self, other) if below else (other, self)
            if reaches(short, long):
                return False
            if reaches(long, short):
                return True
        return usual(self, other)

    return compare


class _Filling(TorchFunctionMode):
    """Within it zeros of an open number, of which there may be none, are what a tensor is padded with that they are joined to.

    torch would ask how many they are, where it makes them, which it does for whatever else they are used for.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "zeros" and len(axes := [axis for axis, each in enumerate(_shape(args)) if _is_rest(each)]) == 1:
            shape = list(_shape(args))
            made = func([1 if axis == axes[0] else length for axis, length in enumerate(shape)], **kwargs)
            setattr(made, _KEPT, (axes[0], shape[axes[0]], lambda: func(shape, **kwargs)))
            return made
        if name == "__get__" or not any(map(_fills_up, pytree.tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        if name == "to":
            at, missing, make = getattr(args[0], _KEPT)
            made = func(*args, **kwargs)
            setattr(made, _KEPT, (at, missing, lambda: func(make(), *args[1:], **kwargs)))
            return made
        axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        if name in ("cat", "concat") and len(args[0]) == 2 and not _fills_up(value := args[0][0]):
            at, missing, _ = getattr(args[0][1], _KEPT)
            if at == axis:
                return functional.pad(value, (*[0, 0] * (value.ndim - 1 - axis), 0, missing))
        return func(*pytree.tree_map(_real, list(args)), **pytree.tree_map(_real, kwargs))


def _real(value: Any) -> Any:  # noqa: ANN401 - an argument
    """The zeros that a tensor stands for; everything else as it is."""
    return getattr(value, _KEPT)[2]() if _fills_up(value) else value


def _fills_up(value: object) -> bool:
    """Whether it stands for zeros of an open number."""
    return isinstance(value, Tensor) and hasattr(value, _KEPT)


def _shape(args: Sequence[Any]) -> Sequence[Any]:
    return args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args


def _is_rest(length: Any) -> bool:  # noqa: ANN401
    """Whether it is an open length that is computed of others, and may be 0."""
    return isinstance(length, SymInt) and not length.node.expr.is_Symbol and not statically_known_true(length > 0)


@contextmanager
def filled_texts(pipeline: Any) -> Iterator[None]:  # noqa: ANN401 - a pipeline of diffusers
    """Within it a text that is never longer than a length is shorter to the pipeline's code, which fills it up to that.

    Nothing is added, where nothing is missing, by what adds it. The larger of two lengths stays open, and so does the smaller.
    """
    kind: Any = SymInt
    below, above = kind.__lt__, kind.__gt__
    modules = [sys.modules[each.__module__] for each in type(pipeline).__mro__ if each.__module__.startswith(_ASKING)]
    for module in modules:
        vars(module).update(max=largest, min=smallest)
    kind.__lt__, kind.__gt__ = _filling(below, below=True), _filling(above, below=False)
    try:
        with _Filling():
            yield
    finally:
        kind.__lt__, kind.__gt__ = below, above
        for module in modules:
            for name in ("max", "min"):
                vars(module).pop(name, None)
