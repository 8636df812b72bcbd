"""What a tensor of a pipeline's run was made of: pictures, which are the same at every step, or the step itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from engines.errors import UnsupportedError

#: What is made of the latent, the time, the prompt or a scale, among the origins of a tensor.
STEP = "step"
#: How the origin is called that is a noise of the pipeline's, before its number.
DRAW = "draw "
#: The two sides of a run: what is made of pictures alone, and what is made of the step too.
Side = Literal["pictures", "step"]
#: What says what a tensor is, not what it holds: a pipeline asks it for a network's number format.
_TOLD = {"__get__", "is_floating_point", "is_complex", "size", "dim", "numel", "element_size"}
#: What may give a tensor the number format of another.
_CASTS = {"to", "type_as"}
#: Where a tensor keeps its origins.
_KEPT = "_origins"


def marked(tensor: Tensor, *names: str) -> Tensor:
    """The same tensor, which from now on was made of these."""
    setattr(tensor, _KEPT, frozenset(names))
    return tensor


def origins(tensor: Tensor) -> frozenset[str]:
    """What a tensor was made of; nothing of a constant."""
    return getattr(tensor, _KEPT, frozenset())


def pictured(tensor: Tensor) -> bool:
    """Whether it is made of pictures or their noise, and not of the step."""
    own = origins(tensor)
    return bool(own) and STEP not in own


def drawn_of(tensor: Any, draws: int, name: str) -> int:  # noqa: ANN401 - a tensor, or what a pipeline keeps instead
    """Which of so many noises of a pipeline's a tensor was made of.

    Raises:
        UnsupportedError: of none, of several, or of something else too.

    """
    made = origins(tensor) if isinstance(tensor, Tensor) else frozenset[str]()
    found = [number for number in range(draws) if f"{DRAW}{number}" in made]
    if len(found) != 1 or len(made) > 1:
        told = f"of {len(found)} of them" if len(found) != 1 else f"of {', '.join(sorted(made - {f'{DRAW}{found[0]}'}))} too"
        raise UnsupportedError(f"{name} draws {draws} noises before its first step, and its latent is made {told}; one is fed.")
    return found[0]


def owners(pipeline: Any) -> dict[int, tuple[str, ...]]:  # noqa: ANN401 - a pipeline of diffusers
    """The id of each weight of its networks → the names of its components: several of one that a network lends another."""
    found: dict[int, tuple[str, ...]] = {}
    for name, network in pipeline.components.items():
        for value in (*network.parameters(), *network.buffers()) if isinstance(network, nn.Module) else ():
            found[id(value)] = (*found.get(id(value), ()), name)
    return found


class Weights(TorchFunctionMode):
    """Within it `saw` is told of each component with whose weights, by `owners`, something is computed.

    Of some no `forward` is called. A weight that one network lends another says nothing.
    """

    def __init__(self, owners: Mapping[int, Sequence[str]], saw: Callable[[str], None]) -> None:
        super().__init__()
        self._owners, self._saw = {number: names[0] for number, names in owners.items() if len(names) == 1}, saw

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        if getattr(func, "__name__", "") not in _TOLD:
            for each in args:
                if isinstance(each, Tensor) and (name := self._owners.get(id(each))):
                    self._saw(name)
        return func(*args, **(kwargs or {}))


class Origins(TorchFunctionMode):
    """Within it what is made of a marked tensor is marked.

    Args:
        crossing: is asked for what takes the place of a tensor of the pictures' side, given its number and itself, where one of
            the step's side is computed with it. The same tensor has the same number.
        real: the side that is computed; the other has shapes alone, on the meta device. None: both are.
        owners: id of a weight → names of its components.

    Attributes:
        used: components whose weights the pictures' side was computed with, in order.

    """

    def __init__(
        self,
        crossing: Callable[[int, Tensor], Tensor] = lambda _, tensor: tensor,
        real: Side | None = None,
        owners: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self._crossing, self._real, self._owners = crossing, real, owners or {}
        self._crossed: list[Tensor] = []
        self.used: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        if getattr(func, "__name__", "") in _CASTS and len(args) > 1 and isinstance(args[1], Tensor):
            func, args = Tensor.to, (args[0], args[1].dtype)  # of which the result holds nothing, so that it does not cross
        both: Any = (tuple(args), dict(kwargs or {}))
        tensors = [each for each in pytree.tree_leaves(both) if isinstance(each, Tensor)]
        made = frozenset[str]().union(*map(origins, tensors))
        if not made:
            if self._real and any(each.is_meta for each in tensors):  # weights that are not loaded stay so
                both = pytree.tree_map_only(torch.device, lambda _: torch.device("meta"), both)
            elif self._real and both[1].get("device") == torch.device("meta"):  # of a tensor that has a shape alone
                both[1]["device"] = torch.device("cpu")
            return func(*both[0], **both[1])
        if STEP in made and any(map(pictured, tensors)):
            self._refuse_in_place(func, args)
            both = pytree.tree_map_only(Tensor, lambda each: self._number(each) if pictured(each) else each, both)
        side: Side = "step" if STEP in made else "pictures"
        if side == "pictures":
            names = dict.fromkeys(name for each in tensors for name in self._owners.get(id(each), ()))
            self.used += [name for name in names if name not in self.used]
        if self._real not in {None, side}:
            if getattr(func, "__self__", None) is Tensor.device:
                return torch.device("cpu")
            if getattr(func, "__name__", "") == "item" and tensors[0].is_floating_point():
                return float("nan")  # which decides nothing: what did would be refused in the step's own graph
            both = pytree.tree_map_only(Tensor, lambda each: each.to("meta"), both)
            both = pytree.tree_map_only(torch.device, lambda _: torch.device("meta"), both)
        found = func(*both[0], **both[1])
        _mark(pytree.tree_leaves(found), made)
        return found

    def _number(self, tensor: Tensor) -> Tensor:
        place = next((place for place, each in enumerate(self._crossed) if each is tensor), len(self._crossed))
        if place == len(self._crossed):
            self._crossed.append(tensor)
        return self._crossing(place, tensor)

    def _refuse_in_place(self, func: Callable[..., Any], args: Sequence[Any]) -> None:
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") and args and isinstance(args[0], Tensor) and pictured(args[0]):
            raise UnsupportedError(f"{name} changes in place what was made of pictures, by what depends on the step.")


def _mark(values: Iterable[Any], made: frozenset[str]) -> None:
    for each in values:
        if isinstance(each, Tensor):
            marked(each, *made)
