"""What differs between the ingredients of two keys, in words: why a stage is made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

#: Modules that are named at most, and phrases in a line.
_MODULES = _PHRASES = 3


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """One phrase per ingredient that differs."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    if modules := [name.removeprefix("code.") for name in changed if name.startswith("code.")]:
        more = f" and {len(modules) - _MODULES} more" if len(modules) > _MODULES else ""
        yield f"code of {', '.join(modules[:_MODULES])}{more} changed"
    for name in (name for name in changed if not name.startswith("code.")):
        kind, _, rest = name.partition(".")
        said = {"inputs": f"input {rest}", "versions": rest}.get(kind, name)
        if name not in before or name not in after:
            yield f"{said} {'added' if name in after else 'removed'}"
        elif kind == "inputs":
            yield f"{said} changed"
        else:
            yield f"{said} {_brief(before[name])} → {_brief(after[name])}"


def reasons(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The same as a line, which names the first of many."""
    said = list(differences(old, new))
    more = [f"and {len(said) - _PHRASES} more"] if len(said) > _PHRASES else []
    return "; ".join([*said[:_PHRASES], *more])


def _leaves(tree: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict) and tree:
        for inner, value in tree.items():
            yield from _leaves(value, f"{name}.{inner}".removeprefix("."))
    elif isinstance(tree, list) and any(isinstance(value, dict | list) for value in tree):
        for index, value in enumerate(tree):
            yield from _leaves(value, f"{name}[{index}]")
    else:
        yield name, tree


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
