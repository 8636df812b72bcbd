"""What a recipe asks of single evaluations, written into compiled samplers: how much guidance, and a whole network or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engines.errors import RecipeError
from engines.sampler_ops import Eval, Ops
from engines.samplers.table import Handovers, Starts, Table

if TYPE_CHECKING:
    from exporter.recipe.sampling import SamplerOptions


def planned(table: Table, options: SamplerOptions) -> Table:
    """A table with what the recipe asks of each evaluation.

    Raises:
        RecipeError: the recipe has another number of scales than the scheduler has evaluations.

    """
    asks = _asks(options, _evaluations(table.ops))
    return table.model_copy(update={"format": max(3, table.format), "ops": _with(table.ops, asks)}) if any(asks) else table


def planned_starts(starts: Starts, options: SamplerOptions) -> Starts:
    """The same of tables that start from an image: where steps are left out, the first that is there runs whole."""
    count = _evaluations(starts.alone)
    if not any(_asks(options, count)):
        return starts
    tables = (_with(ops, _asks(options, count, count - _evaluations(ops))) for ops in (starts.alone, *starts.starts))
    alone, *others = tables
    return starts.model_copy(update={"format": 3, "alone": alone, "starts": tuple(others)})


def planned_handovers(handovers: Handovers, options: SamplerOptions) -> Handovers:
    """The same of tables that stop or begin between two steps: of one that begins there the first runs whole."""
    count = _evaluations(handovers.whole)
    if not any(_asks(options, count)):
        return handovers
    whole = _with(handovers.whole, _asks(options, count))
    starts = {left: _with(ops, _asks(options, count, left)) for left, ops in handovers.starts.items()}
    return handovers.model_copy(update={"whole": whole, "starts": starts})


def _asks(options: SamplerOptions, count: int, skipped: int = 0) -> list[Mapping[str, Any]]:
    """Fields of each evaluation after the skipped ones."""
    shares = options.guidance.shares(count)
    if shares is not None and len(shares) != count:
        raise RecipeError(
            f"sampler.guidance.scales: has {len(shares)} scales, and this scheduler evaluates the network {count} times; "
            "write one of each evaluation"
        )
    wholes = options.wholes(count, skipped)

    def fields() -> Iterator[Mapping[str, Any]]:
        for index, whole in enumerate(wholes, skipped):
            yield {**({} if shares is None else {"guided": shares[index]}), **({} if whole else {"shallow": True})}

    return list(fields())


def _evaluations(ops: Ops) -> int:
    return sum(isinstance(op, Eval) for op in ops)


def _with(ops: Ops, asks: list[Mapping[str, Any]]) -> Ops:
    """The ops with the fields of each evaluation."""
    left = iter(asks)
    return tuple(op.model_copy(update=next(left)) if isinstance(op, Eval) else op for op in ops)
