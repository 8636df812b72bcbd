"""Errors that a user can act on: every class under `T2IError`, wherever it is defined, by its exit status."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from engines.errors import T2IError
from engines.exits import INTERRUPTED, NOBODY_READS
from tools.docs.blocks import table

_ROOT = Path(__file__).parents[2]


def statuses() -> str:
    """One row for each exit status, with the errors that have it."""
    rows = {0: ["0", "", "done"], 1: ["1", "any other", "a bug in t2iexport: a traceback; please report it"]}
    rows |= {INTERRUPTED: [str(INTERRUPTED), "", "interrupted by Ctrl-C; what was finished is kept"]}
    rows |= {NOBODY_READS: [str(NOBODY_READS), "", "nobody reads the output any more"]}
    for error in tree():
        rows.setdefault(error.exit_code, [str(error.exit_code), "", ""])
        row = rows[error.exit_code]
        if error.__base__ is not T2IError:  # a case of its base, which says more
            row[1] += f", `{error.__name__}`"
            continue
        summary = re.split(r"[;.]( |$)", " ".join(inspect.cleandoc(error.__doc__ or "").split()))[0]
        row[1:] = [", ".join(filter(None, [row[1], f"`{error.__name__}`"])), "; ".join(filter(None, [row[2], _lower(summary)]))]
    return table(["exit status", "error", "what happened"], (rows[status] for status in sorted(rows)))


def tree() -> list[type[T2IError]]:
    """Every error below T2IError of both packages, in the order in which their files define them."""
    found: list[type[T2IError]] = []
    names, waiting = {T2IError.__name__}, list(_classes())
    while ready := [each for each in waiting if each[2] & names]:
        waiting = [each for each in waiting if each not in ready]
        names |= {name for _, name, _ in ready}
        found += [getattr(importlib.import_module(module), name) for module, name, _ in ready]
    return found


def _classes() -> Iterator[tuple[str, str, frozenset[str]]]:
    """Module, name and bases of every class of both packages; imports none."""
    for package in ("engines", "exporter"):
        for file in sorted((_ROOT / package).rglob("*.py")):
            module = ".".join(file.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    yield module, node.name, frozenset(ast.unparse(base).rpartition(".")[2] for base in node.bases)


def _lower(sentence: str) -> str:
    """Without the capital of a sentence's first word, unless that is a name."""
    return sentence if sentence[1:2].isupper() else sentence[:1].lower() + sentence[1:]
