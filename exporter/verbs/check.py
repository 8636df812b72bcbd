"""Verbs that hold a bundle to its source model, and find the layer to blame."""

from __future__ import annotations

from pathlib import Path

import click

from engines.disk import require_file
from engines.errors import ParityError
from exporter.verbs.options import PATH


@click.command("check")
@click.argument("bundle", type=PATH)
@click.option("--backend", help="Only this one.  [default: every backend that opens here]")
@click.option("--json", "json_file", type=PATH, help="Also write the verdicts as JSON.")
@click.option("--junit", "junit_file", type=PATH, help="Also write the verdicts as JUnit XML.")
@click.option("--no-receipt", is_flag=True, help="Only read the bundle; keep no verdicts in it.")
def check_command(
    bundle: Path, backend: str | None, json_file: Path | None, junit_file: Path | None, *, no_receipt: bool
) -> None:
    """Hold a bundle's engines to its source model.

    Both on the same noise; the source's side was recorded when the bundle was built.
    """
    from exporter.build import check
    from exporter.parity import table
    from exporter.report import console, progress

    for file in filter(None, (json_file, junit_file)):
        require_file(file)
    with progress.stage_lines(error=True):
        verdicts = check(bundle, backend, lambda line: click.echo(f"note: {line}", err=True), receipt=not no_receipt)
    if json_file:
        console.write_json(json_file, {"bundle": str(bundle), "verdicts": console.verdict_rows(verdicts)})
    if junit_file:
        console.write_junit(junit_file, bundle.resolve().name, verdicts)
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        blame = "The first line that fails names the part and the stage to blame."
        raise ParityError(f"{table.table(verdicts)}\n\n{len(failed)} of {len(verdicts)} comparisons are out of limits. {blame}")
    click.echo(table.table(verdicts))


@click.command("debug")
@click.argument("bundle", type=PATH)
@click.argument("part")
@click.option("--backend", help="Whose engine to look into.  [default: the first that the part has]")
@click.option("-o", "--output", type=PATH, help="Folder of what repeats the fault.  [default: debug/<bundle>/<part>]")
def debug_command(bundle: Path, part: str, backend: str | None, output: Path | None) -> int:
    """Find the layer of a part that is out of limits.

    Writes the smallest graph that shows it, and how to repeat it.
    """
    from exporter.build import debug
    from exporter.report import fault, progress
    from exporter.stages.store import Store

    folder = output or Path("debug") / bundle.resolve().name / part
    with progress.stage_lines(error=True) as lines:
        report = debug(bundle, part, backend, folder, Store(say=lines.say), lines)
    click.echo(fault.text(report))
    return ParityError.exit_code if report.fault else 0
