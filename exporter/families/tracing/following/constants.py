"""What depends on none of a part's inputs, computed once where its graph is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import SymFloat, SymInt, Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes


class Constants(TorchFunctionMode):
    """Within it, whoever traces sees of what is made of numbers alone the result, whose values Python may ask for.

    So networks may plan in Python by the sizes of their pictures, as vision towers do that attend within windows. Open lengths,
    weights and what is made of inputs are no numbers.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        if any(map(is_traced, pytree.tree_leaves((tuple(args), dict(kwargs or {}))))):
            return func(*args, **(kwargs or {}))
        with _disable_current_modes():
            return func(*args, **(kwargs or {}))


def is_traced(value: object) -> bool:
    """Whether a function's argument is an input, a weight or an open length, or made of one."""
    if isinstance(value, Tensor):
        return isinstance(value, FakeTensor | FunctionalTensor | nn.Parameter) or value.is_meta
    return isinstance(value, SymInt | SymFloat)
