"""How the command line prints: aligned tables, one line per stage, JSON and JUnit; colours only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from engines.disk import writing
from exporter.parity.metrics import labelled
from exporter.parity.table import limits

if TYPE_CHECKING:
    from rich.console import Console

    from engines.bundle import Verdict


def console(*, error: bool = False) -> Console:
    """Open a console on stdout or stderr; text that is piped is neither coloured nor wrapped."""
    from rich.console import Console  # noqa: PLC0415 - --help stays quick

    terminal = (sys.stderr if error else sys.stdout).isatty()
    return Console(stderr=error, highlight=False, markup=False, emoji=False, width=None if terminal else 400)


def show(facts: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Print facts as lines, lists of rows as tables, lists of sentences as a list; or all of them as JSON."""
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))  # noqa: T201 - as it is, for a program: neither styled nor wrapped
        return
    screen, width = console(), max((len(name) for name, value in facts.items() if isinstance(value, str)), default=0)
    for name, value in facts.items():
        if isinstance(value, str):
            screen.print(f"{name:<{width}}  {value}")
        elif value and isinstance(value[0], str):
            screen.print(f"\n{name}", *(f"  {sentence}" for sentence in value), sep="\n")
        elif value:
            screen.print(f"\n{name}", style="bold")
            table(screen, value)


def table(screen: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows under their keys; numbers stand on the right, and a column that is empty throughout is left out."""
    from rich.table import Table  # noqa: PLC0415 - --help stays quick

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    names = [name for name in rows[0] if any(row[name] not in {"", None} for row in rows)]
    for name in names:
        numeric = all(str(row[name])[:1].isdigit() or not row[name] for row in rows) and name not in {"version", "opset", "nodes"}
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(str(row[name]) for name in names))
    with screen.capture() as captured:
        screen.print(drawn)
    screen.print("\n".join(f"  {line.rstrip()}" for line in captured.get().splitlines()))


def verdict_rows(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Verdicts as JSON holds them."""
    return [verdict.model_dump(mode="json") for verdict in verdicts]


def write_json(path: Path, content: object) -> None:
    """Write JSON for a program to read."""
    with writing(path, f"writing {path}"):
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_junit(path: Path, name: str, verdicts: Sequence[Verdict]) -> None:
    """Write verdicts as JUnit XML, one test case each, as continuous integration shows it."""
    failed = sum(not verdict.passed for verdict in verdicts)
    suite = ET.Element("testsuite", name=name, tests=str(len(verdicts)), failures=str(failed))
    for verdict in verdicts:
        title = " · ".join(filter(None, [verdict.stage, verdict.case, verdict.backend]))
        case = ET.SubElement(suite, "testcase", classname=f"{name}.{verdict.part}", name=title)
        if not verdict.passed:
            found = labelled(verdict.values) or "not measured"
            ET.SubElement(case, "failure", message=f"{found}; limit {limits(verdict.limit) or 'none'}. {verdict.note}".strip())
    with writing(path, f"writing {path}"):
        ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
