"""Print a compiled sampler: `python -m tools.measure.show_table TABLE.json [--digits 4] [--against OTHER.json]`."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import click

from engines.sampler_ops import Draw, Emit, Eval, GivenLatent, Scaled
from engines.samplers.table import Table

Op = Draw | GivenLatent | Eval | Scaled | Emit


def line(op: Op | None, digits: int) -> str:
    """One op as text; an empty line for none."""
    match op:
        case None:
            return ""
        case Draw():
            return "draw"
        case GivenLatent():
            return f"given {op.name}"
        case Eval():
            return f"eval {op.t:<8g} {row(op.row, digits)}"
        case Scaled():
            return f"scaled ^{op.power}     {row(op.row, digits)}"
        case Emit():
            return f"emit          {row(op.row, digits)}"


def row(values: tuple[float, ...], digits: int) -> str:
    """Coefficients, aligned."""
    return " ".join(f"{value:>{digits + 6}.{digits}g}" if value else " " * (digits + 5) + "·" for value in values)


def difference(left: Op | None, right: Op | None) -> str:
    """What differs between two ops, empty where nothing does."""
    if type(left) is not type(right) or left is None or right is None:
        return "another op"
    if not isinstance(left, Eval | Emit) or not isinstance(right, Eval | Emit):
        return "" if left == right else "another latent"
    most = max(abs(a - b) for a, b in zip_longest(left.row, right.row, fillvalue=0.0))
    times = "another time, " if getattr(left, "t", None) != getattr(right, "t", None) else ""
    return f"{times}coefficients differ by up to {most:.1e}" if times or most else ""


@click.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--digits", default=4, show_default=True, help="Significant digits of a coefficient.")
@click.option("--against", type=click.Path(path_type=Path), help="Another table: mark the ops that differ.")
def main(table: Path, digits: int, against: Path | None) -> None:
    """Print where a table comes from, then its ops, one a line; a dot is a zero."""
    shown = Table.load(table)
    for key, value in shown.provenance.model_dump(exclude_defaults=True).items():
        click.echo(f"{key:<10} {value}")
    click.echo()
    others = Table.load(against).ops if against else ()
    for index, (op, other) in enumerate(zip_longest(shown.ops, others)):
        mark = difference(op, other) if against else ""
        click.echo(f"{index:>4} {line(op, digits)}" + (f"   ← {mark}" if mark else ""))


if __name__ == "__main__":
    main()
