"""The registry is the folder: a plugin is one file with one public name, found by listing, imported on demand."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import MissingDependency, UnsupportedError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: Kind of plugin → the package whose folder lists them. Third parties add an entry point to the group `t2iexport.<kind>`.
KINDS = {
    "families": "exporter.families",
    "passes": "exporter.passes",
    "graph": "exporter.graph",
    "backends": "engines.backends",
    "samplers": "engines.samplers",
    "scores": "exporter.scores",
}


def _folder(kind: str) -> Path:
    top, _, sub = KINDS[kind].partition(".")
    return Path(importlib.import_module(top).__file__ or "").parent / sub


@functools.cache
def _read(_path: tuple[str, ...]) -> Any:  # noqa: ANN401 - of another class in Python 3.11 than in 3.12
    """Read what all installed packages offer; each of them has to be opened to know."""
    from importlib import metadata  # noqa: PLC0415 - a third of what the run time's import took, and opening a bundle needs none

    return metadata.entry_points()


def _others(kind: str) -> Iterable[EntryPoint]:
    """Plugins of other packages."""
    return _read(tuple(sys.path)).select(group=f"t2iexport.{kind}")


def names(kind: str) -> list[str]:
    """Names of the plugins of one kind, sorted; imports none of them."""
    own = {file.stem for file in _folder(kind).glob("*.py") if not file.stem.startswith("_")}
    return sorted(own | {point.name for point in _others(kind)})


def known(kind: str) -> dict[str, Any]:
    """Name → public name of every plugin of one kind; without those of other packages whose libraries are not installed."""
    found: dict[str, Any] = {}
    for name in names(kind):
        with contextlib.suppress(MissingDependency):
            found[name] = load(kind, name)
    return found


def did_you_mean(word: str, among: list[str]) -> str:
    """`; did you mean 'x'?` for a near miss, else the list of what there is, or that there is nothing."""
    import difflib  # noqa: PLC0415 - for a mistake alone

    close = difflib.get_close_matches(word, among, n=1)
    told = f"; there are: {', '.join(among)}" if among else "; there are none"
    return f"; did you mean {close[0]!r}?" if close else told


def module(kind: str, name: str) -> str:
    """Dotted name of the module that a plugin is in; imports nothing.

    Raises:
        UnsupportedError: there is no plugin of that name.

    """
    if (_folder(kind) / f"{name}.py").is_file() and not name.startswith("_"):
        return f"{KINDS[kind]}.{name}"
    for point in _others(kind):
        if point.name == name:
            return point.module
    raise UnsupportedError(f"no {kind} plugin named {name!r}{did_you_mean(name, names(kind))}")


def source(kind: str, name: str) -> Path | None:
    """The file that a plugin is in, where it has one; imports nothing but the package around it."""
    spec = importlib.util.find_spec(module(kind, name))
    return Path(spec.origin) if spec and spec.origin else None


def load(kind: str, name: str) -> Any:  # noqa: ANN401 - each kind has its own protocol, stated in its package
    """Import one plugin and return its one public name.

    Raises:
        UnsupportedError: there is no plugin of that name.

    """
    for point in _others(kind):
        if point.name == name and point.module == module(kind, name):
            return point.load()
    own = importlib.import_module(module(kind, name))
    return getattr(own, own.__all__[0])
