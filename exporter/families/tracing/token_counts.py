"""How many tokens networks of a step make of a text's ids: of a text of any length a graph can make so many more, and no stairs.

A network whose Python rounds a share of the length, as one does that squeezes texts of any length into 256 to 512 tokens, takes
another graph at each stair, and torch simplifies what it makes of a length that is open for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from engines.errors import UnsupportedError
from exporter.families.tracing import played_parts
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.dry_run import Leaf

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey

#: So many equal steps, of a power of two of ids each, are there from the shortest text to the longest one that is tried.
_STEPS = 7
#: By how much two growths may differ that are the same but for rounding.
_ROUNDED = 2


def refuse_stairs(survey: Survey) -> None:
    """Let the networks of a step compute shapes for two short texts and two long ones.

    Raises:
        UnsupportedError: from one to the next a network computes with another number of tokens more at the one end than at the
            other, or another number of modules.

    """
    ranges = [survey.open[dim] for leaves in survey.conditioning for dim in _dims(leaves)]
    if not ranges:
        return
    first, room = max(each.min for each in ranges), min(each.max for each in ranges) - max(each.min for each in ranges)
    step = 1 << (room // _STEPS).bit_length() >> 1
    if not step:
        return
    lengths = [first + step * place for place in (0, 1, _STEPS - 1, _STEPS)]
    components = {name: getattr(survey.pipeline, name) for name in survey.components.get("denoiser", [])}
    networks = {name: each for name, each in components.items() if isinstance(each, nn.Module)}
    seen = [_shapes(survey, networks, each) for each in lengths]
    for name, network in networks.items():
        _refuse(survey, f"{name} ({type(network).__name__})", lengths, [each[name] for each in seen])


def _refuse(survey: Survey, name: str, lengths: list[int], seen: list[list[tuple[int, ...]]]) -> None:
    told = ", ".join(map(str, lengths))
    if len({len(each) for each in seen}) > 1:
        raise _refused(
            survey, f"{name} computes with {', '.join(str(len(each)) for each in seen)} tensors of texts of {told} ids"
        )
    for shapes in zip(*seen, strict=True):
        for sizes in zip(*shapes, strict=False):
            if abs((sizes[1] - sizes[0]) - (sizes[3] - sizes[2])) > _ROUNDED:
                raise _refused(survey, f"{name} makes {', '.join(map(str, sizes))} tokens of texts of {told} ids")


def _refused(survey: Survey, told: str) -> UnsupportedError:
    return UnsupportedError(
        f"{survey.name}: {told}: by code that rounds a share of a text's length, which a graph for texts of any length cannot "
        "follow.\n  This is a gap in t2iexport."
    )


def _dims(leaves: list[Any]) -> list[str]:
    return [dim for leaf in leaves if isinstance(leaf, Leaf) for dim in leaf.open.values()]


def _shapes(survey: Survey, networks: Mapping[str, nn.Module], length: int) -> dict[str, list[tuple[int, ...]]]:
    """By network, shapes of all tensors that its modules are given in one step, of texts that are that long."""
    found: dict[str, list[tuple[int, ...]]] = {name: [] for name in networks}

    def noting(seen: list[tuple[int, ...]]) -> Callable[..., None]:
        def saw(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
            seen.extend(tuple(each.shape) for each in pytree.tree_leaves((args, given)) if isinstance(each, Tensor))

        return saw

    leaves = [leaf for each in survey.conditioning for leaf in each if isinstance(leaf, Leaf)]
    shapes = {leaf.name: [length if isinstance(each, str) else each for each in leaf.port_shape] for leaf in leaves}
    values = {name: torch.zeros(1, *shape) for name, shape in shapes.items()}
    with ExitStack() as stack:
        stack.enter_context(_repeated(networks.values()))
        for name, network in networks.items():
            for module in network.modules():
                stack.callback(module.register_forward_pre_hook(noting(found[name]), with_kwargs=True).remove)
        survey.step(dry_run.replayed(played_parts.restored(survey, values, torch.float32)))
    return found


@contextmanager
def _repeated(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Within it a block that is made as others of its list, and given what they were, gives what they gave: shapes are the same.

    Of sixty blocks one computes, which takes a tenth of the time.
    """
    lists = [each for network in networks for each in network.modules() if isinstance(each, nn.ModuleList)]
    with ExitStack() as stack:
        for blocks in lists:
            known: dict[Any, list[Any]] = {}
            for block in blocks:
                made = type(block), tuple((name, value.shape) for name, value in block.named_parameters())
                stack.enter_context(_with_forward(block, _remembered(block.forward, known.setdefault(made, []))))
        yield


@contextmanager
def _with_forward(block: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    own = vars(block)
    before = {name: own[name] for name in ("forward",) if name in own}
    own["forward"] = forward
    try:
        yield
    finally:
        del own["forward"]
        own.update(before)


def _remembered(forward: Callable[..., Any], known: list[Any]) -> Callable[..., Any]:
    """The same function, which returns what was `known` last where it is given tensors of the same shapes and all else alike."""

    def called(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever a network's block takes and gives
        leaves, tree = pytree.tree_flatten((args, kwargs))
        asked = tree, [(each.shape, each.dtype) if isinstance(each, Tensor) else each for each in leaves]
        if not known or known[0] != asked:
            known[:] = asked, forward(*args, **kwargs)
        return known[1]

    return called
