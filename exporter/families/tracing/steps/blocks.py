"""Step caching in transformers: the first blocks alone, and what the others added to the picture's tokens at a whole call.

The deep feature is that residual: what comes into the last layers, less what leaves block `depth` of the first list of blocks.
A whole call goes on with the sum of the two, and leaves it; a shallow one adds what it is given to what its own first blocks
make, and goes on with the network's last layers (the schedule is the recipe's; ParaAttention's first-block cache decides by the
first residual instead).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from engines.errors import RecipeError
from engines.signature import Port
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.origins import Origins
from exporter.families.tracing.steps.crossings import SIDES
from exporter.part import DEEP

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey
    from exporter.recipe.schema import Shapes


#: What blocks call the tokens that they change.
_TOKENS = "hidden_states"
#: Where in a row of tokens the picture's are.
Side = Literal["all", "first", "last"]


@dataclass(frozen=True)
class Blocks:
    """Where a transformer can be cut.

    Attributes:
        stack: name of its first list of blocks that change the picture's tokens.
        final: name of the module that takes these behind the last block.
        output: which of the things that a block of the stack returns they are; None where it returns nothing else.
        depths: at which it can be cut: so many blocks of the stack, less one, run at every step.
        rows: per call in one step, rows of the tokens that are one picture's; all pictures of a branch follow each other.
        numbers: of the tokens, to a cell of the latent.
        skips: name of a block → what it was given in the shape of each thing that it returns; those that can be passed over.
        side: where in a row of tokens the picture's are: all of it, or its `first` or `last` ones, beside those of the text.

    """

    stack: str
    final: str
    output: int | None
    depths: range
    rows: tuple[int, ...]
    numbers: int
    skips: Mapping[str, Any]
    side: Side = "all"

    @property
    def port(self) -> Port:
        """Of the deep feature: every token of every branch, cell by cell as it is numbered through."""
        return Port(name=DEEP, shape=("batch", sum(self.rows), *SIDES, self.numbers))

    def problem(self, depth: int) -> str:
        """Why it cannot be cut at a depth, and where it can; else nothing."""
        if depth in self.depths:
            return ""
        most, count = self.depths[-1], depth + 1
        return (
            f"sampler.cache.depth: {depth} runs {count} blocks of {self.stack} at every step, and there are not so many, or none "
            f"is left for the others; what fits: {f'0 to {most}' if most else '0'}"
        )

    @contextmanager
    def whole(self, network: nn.Module, depth: int, sides: Sequence[Any]) -> Iterator[list[Tensor]]:
        """Within it, every call of the network leaves its deep feature (rows, tokens, width) in the list.

        `sides` are of the latent, in cells.
        """
        kept: list[Tensor] = []

        def leave(shown: Tensor, last: Tensor) -> Tensor:
            count = sides[0] * sides[1] * self.numbers // last.shape[-1]
            kept.append(self._parted(last, count)[0] - self._parted(shown, count)[0])
            return self._added(shown, kept[-1])  # so that the residual is a value with which the layers behind go on

        with self._cut(network, depth, leave):
            yield kept

    @contextmanager
    def shallow(self, network: nn.Module, depth: int, deep: Sequence[Tensor]) -> Iterator[None]:
        """Within it, the network's calls take the residuals of `deep`, one after the other, for what the other blocks add."""
        waiting = list(deep)

        def take(shown: Tensor, last: Tensor) -> Tensor:  # noqa: ARG001 - what the blocks made that were not passed over
            given = waiting.pop(0)
            return self._added(shown, given.reshape(shown.shape[0], -1, shown.shape[-1]).to(shown.dtype))

        with self._cut(network, depth, take), ExitStack() as stack:
            for name, given in self.skips.items():
                block, _, number = name.rpartition(".")
                if block != self.stack or int(number) > depth:
                    stack.enter_context(_passed_over(network.get_submodule(name), given))
            yield

    def _parted(self, row: Tensor, count: int) -> tuple[Tensor, Tensor | None]:
        """The picture's tokens of a row (rows, tokens, width), which are so many, and the others."""
        if self.side == "all":
            return row, None
        own = slice(None, count) if self.side == "first" else slice(row.shape[1] - count, None)
        others = slice(count, None) if self.side == "first" else slice(None, row.shape[1] - count)
        return row[:, own], row[:, others]

    def _added(self, row: Tensor, residual: Tensor) -> Tensor:
        """A row with the residual added to the picture's tokens; of the others nothing is read behind the last block."""
        own, others = self._parted(row, residual.shape[1])
        if others is None:
            return own + residual
        return torch.cat([own + residual, others] if self.side == "first" else [others, own + residual], dim=1)

    @contextmanager
    def _cut(self, network: nn.Module, depth: int, join: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
        shown: list[Tensor] = []

        def keep(_module: nn.Module, _args: object, found: Any) -> None:  # noqa: ANN401 - one tensor, or several
            shown.append(found if self.output is None else found[self.output])

        def go_on(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            name = "" if args else next(iter(inspect.signature(module.forward).parameters))
            joined = join(shown.pop(), args[0] if args else kwargs[name])
            return ((joined, *args[1:]), kwargs) if args else (args, {**kwargs, name: joined})

        with ExitStack() as stack:
            block = network.get_submodule(f"{self.stack}.{depth}")
            stack.callback(block.register_forward_hook(keep).remove)
            final = network.get_submodule(self.final)
            stack.callback(final.register_forward_pre_hook(go_on, with_kwargs=True).remove)
            yield

    def as_port(self, kept: Sequence[Tensor], latent: Tensor) -> Tensor:
        """The port's value of what the calls of one step left, for a latent (B, C, H, W)."""
        calls = zip((each.float() for each in kept), self.rows, strict=True)
        both = [dry_run.as_pictures(each, rows) if rows > 1 else each[:, None] for each, rows in calls]
        joined = both[0] if len(both) == 1 else torch.cat(both, dim=1)
        return joined.reshape(latent.shape[0], sum(self.rows), *latent.shape[2:], self.numbers)

    def of_port(self, value: Tensor) -> list[Tensor]:
        """What the calls of one step take, of the port's value."""
        split = zip(value.split(list(self.rows), 1), self.rows, strict=True)
        return [dry_run.as_rows(each, rows) if rows > 1 else each[:, 0] for each, rows in split]


@contextmanager
def _passed_over(block: Any, given: Any) -> Iterator[None]:  # noqa: ANN401 - a module, and names of its arguments
    """Within it a block computes nothing: it returns what it was given under these names."""
    takes, forward = inspect.signature(block.forward), block.forward

    def same(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the block's
        bound = takes.bind(*args, **kwargs).arguments
        return pytree.tree_map(lambda name: None if name is None else bound[name], given, is_leaf=lambda each: each is None)

    before = vars(block).get("forward")
    block.forward = same
    try:
        yield
    finally:
        if before is None:
            del block.forward
        else:
            block.forward = forward


@dataclass
class _Call:
    """What one call of a network did at one size.

    Attributes:
        blocks: in order, by name, with arguments and results.
        final: what came next, and what it was given.
        read: first and number of the tokens that the network read of the last row; None where it read all.

    """

    blocks: list[tuple[str, Mapping[str, Any], Any]] = field(default_factory=list)
    final: tuple[str, Any] | None = None
    read: tuple[int, int] | None = None

    @property
    def last(self) -> Tensor | None:
        """The row of tokens that comes into the last layers, (rows, tokens, width); None where there is none."""
        found = self.final[1] if self.final else None
        return found if isinstance(found, Tensor) and found.ndim == 3 else None

    @property
    def side(self) -> Side | None:
        """Where the picture's tokens are in the last row."""
        if self.last is None or self.read is None:
            return "all"
        first, count = self.read
        return "first" if first == 0 else "last" if first + count == self.last.shape[1] else None


class _Reading(TorchDispatchMode):
    """Within it the first part of the last row that a network takes by itself is noted in its call."""

    def __init__(self, calls: Sequence[_Call]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_dispatch__(
        self, func: Callable[..., Any], _types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        found = func(*args, **(kwargs or {}))
        call = self._calls[-1] if self._calls else _Call()
        if func is torch.ops.aten.slice.Tensor and call.read is None and call.last is not None:
            row, axis, first = args[0], *(*args[1:3], 0, 0)[:2]
            along = row.ndim - 2  # rows of tokens, and not their numbers
            if axis % row.ndim == along and row.shape[along] == call.last.shape[1] != found.shape[along]:
                call.read = int(first) % row.shape[along], int(found.shape[along])
        return found


def found(survey: Survey, name: str, shapes: Shapes, factor: int, steps: tuple[int, int]) -> Blocks:
    """Where the network of that name can be cut, found by running it for shapes.

    Args:
        survey: of its pipeline.
        name: of the network.
        shapes: of the pictures.
        factor: pixels to a cell and side.
        steps: pixels from one height to the next, and from one width.

    Raises:
        RecipeError: nowhere.

    """
    sizes = [(shapes.height[each], shapes.width[each]) for each in (1, 0, 2)]
    # Rows that are filled up to some multiple may be whole at all three, and not at the sizes between.
    sides = zip((shapes.height, shapes.width), steps, strict=True)
    height, width = (min(lengths[0] + step, lengths[2]) for lengths, step in sides)
    sizes.append((height, width))
    network = getattr(survey.pipeline, name)
    about = f"{type(network).__name__} of {survey.name}"
    seen = {size: _calls(survey, network, size) for size in dict.fromkeys(sizes)}
    call = seen[sizes[0]][0]
    place = _place(call)
    if place is None:
        raise _refused(f"{about} has no list of blocks of which one gives what its last layers take")
    stack, output, final = place
    numbers = {_numbers(each, size, factor) for size, calls in seen.items() for each in calls}
    of_rows: set[Side | None] = {each.side for calls in seen.values() for each in calls}
    if len(numbers) != 1 or None in numbers or len(of_rows) != 1 or None in of_rows:
        raise _refused(f"the tokens of {about} are not so many to each of the picture's cells")
    names = [block for block, _, _ in call.blocks]
    count = sum(block.rpartition(".")[0] == stack for block in names)
    after = names[names.index(f"{stack}.0") :]
    depths = range(count - (len(after) == count))
    if not depths:
        raise _refused(f"{about} has one block")
    skips = {block: _same(given, made) for block, given, made in call.blocks if block in after}
    rows = tuple(int(each.final[1].shape[0]) for each in seen[sizes[0]] if each.final)
    (each,), (side,) = numbers, of_rows
    passed = {block: given for block, given in skips.items() if given}
    return Blocks(stack, final, output, depths, rows, int(each or 0), passed, side or "all")


def _refused(told: str) -> RecipeError:
    return RecipeError([f"sampler.cache: {told}, so that it cannot be cut there; leave it out"])


def _calls(survey: Survey, network: nn.Module, size: tuple[int, int]) -> list[_Call]:
    """Every call of a network in one step for a picture of (height, width) pixels."""
    calls: list[_Call] = []
    lists = [name for name, child in network.named_children() if isinstance(child, nn.ModuleList)]

    def block(name: str, takes: inspect.Signature) -> Callable[..., None]:
        def saw(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> None:  # noqa: ANN401
            calls[-1].blocks.append((name, takes.bind(*args, **kwargs).arguments, made))
            calls[-1].final = None

        return saw

    def other(name: str) -> Callable[..., None]:
        def saw(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if calls and calls[-1].blocks and calls[-1].final is None:
                calls[-1].final = name, next(iter((*args, *kwargs.values())), None)

        return saw

    with ExitStack() as stack:
        stack.callback(network.register_forward_pre_hook(lambda *_: calls.append(_Call())).remove)
        for name, module in network.named_modules():
            first, _, rest = name.partition(".")
            if first in lists and rest.isdecimal():
                takes = inspect.signature(module.forward)
                stack.callback(module.register_forward_hook(block(name, takes), with_kwargs=True).remove)
            elif name and first not in lists:
                stack.callback(module.register_forward_pre_hook(other(name), with_kwargs=True).remove)
        stack.callback(network.register_forward_hook(lambda *_: calls.append(_Call())).remove)  # what follows is the pipeline's
        stack.enter_context(_Reading(calls))
        survey.follow(Origins(), {}, (1, *size))
    return [call for call in calls if call.blocks]


def _place(call: _Call) -> tuple[str, int | None, str] | None:
    """The list of blocks, which of the things that they return are the picture's tokens, and what follows the last block."""
    name, last = call.final[0] if call.final else "", call.last
    if last is None:
        return None
    for place, (block, _, made) in enumerate(call.blocks):
        alike = [each for each, one in enumerate(_several(made)) if isinstance(one, Tensor) and one.shape == last.shape]
        if len(alike) > 1 and place + 1 < len(call.blocks):
            following = call.blocks[place + 1][1].get(_TOKENS)
            alike = [each for each in alike if made[each] is following]
        if alike:
            return block.rpartition(".")[0], None if isinstance(made, Tensor) else alike[0], name
    return None


def _several(made: Any) -> Sequence[Any]:  # noqa: ANN401 - what a block returns
    return made if isinstance(made, tuple | list) else [made]


def _numbers(call: _Call, size: tuple[int, int], factor: int) -> int | None:
    """Numbers of the picture's tokens to a cell of the latent; None where they cannot be told apart like that."""
    if call.last is None:
        return None
    cells, count = (size[0] // factor) * (size[1] // factor), call.read[1] if call.read else call.last.shape[1]
    found, rest = divmod(count * call.last.shape[2], cells)
    return None if rest else int(found)


def _same(given: Mapping[str, Any], made: Any) -> Any:  # noqa: ANN401 - what a block returns
    """Name of an argument in the shape of each thing that a block returns; None where one has none."""
    tensors = {name: each for name, each in given.items() if isinstance(each, Tensor)}

    def name(one: Any) -> str | None:  # noqa: ANN401
        return next((each for each, own in tensors.items() if isinstance(one, Tensor) and own.shape == one.shape), None)

    names = [name(one) for one in _several(made)]
    if any(each is None and one is not None for each, one in zip(names, _several(made), strict=True)):
        return None
    return tuple(names) if isinstance(made, tuple | list) else names[0]
