"""Which code a function can run: the definitions that it reaches in our packages, read from the sources; nothing is imported."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from exporter.stages.source import Definition, SourceFile, read, remembered

#: Where `exporter` and `engines` lie.
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("engines", "exporter")

#: A module, and the name of what stands in it; None for all of it.
Place = tuple[str, str | None]


class Sources:
    """The sources of our packages below one folder, and those of the plugins of third parties where they are installed."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._tops: dict[str, Path | None] = dict.fromkeys(PACKAGES, root)
        self._files: dict[str, Path | None] = {}
        self._sources: dict[str, SourceFile] = {}
        self._places: dict[Place, tuple[frozenset[Definition], tuple[Place, ...]]] = {}
        self._digests: dict[tuple[Place, ...], Mapping[str, str]] = {}

    def code(self, makers: Iterable[object]) -> Mapping[str, str]:
        """Module → digest of those of its definitions that functions, classes, or modules by their names, can reach.

        Imports count wherever they stand, but for type checkers; so do the files that a definition names beside its own. What
        stands in neither function nor class nor assignment counts as soon as anything of its module does. Methods are found by
        their class: an object that a function is given comes with its class as one more maker.

        Raises:
            LookupError: there is no such module.

        """
        places = tuple(sorted({self._place(maker) for maker in makers}, key=str))
        if places not in self._digests:
            plugged = len(self._tops) > len(PACKAGES)  # with a plugin's sources, which lie elsewhere
            make = partial(self._digest, places)
            self._digests[places] = make() if plugged else remembered(f"{self._every} {places}", make)
        return self._digests[places]

    def reach(self, makers: Iterable[object]) -> Mapping[str, set[Definition]]:
        """Module → its definitions that are reached, as for `code`."""
        return self._reach(tuple(self._place(maker) for maker in makers))

    def file(self, module: str) -> Path | None:
        """A module's file, a package's `__init__.py`; None where there is none, or it is not of our packages."""
        if module not in self._files:
            top = self._tops.get(module.partition(".")[0])
            path = top and top.joinpath(*module.split("."))
            places = (path / "__init__.py", path.with_name(f"{path.name}.py")) if path else ()
            self._files[module] = next((place for place in places if place.is_file()), None)
        return self._files[module]

    @cached_property
    def _every(self) -> str:
        """Digest of every file of our packages: while none changes, what reaches what need not be followed again."""
        total = hashlib.sha256()
        for folder, folders, names in (walked for package in PACKAGES for walked in os.walk(self._root / package)):
            folders[:] = sorted(set(folders) - {"__pycache__"})
            for name in sorted(names):
                path = Path(folder, name)
                total.update(f"{path.relative_to(self._root)} {len(said := path.read_bytes())} ".encode() + said)
        return total.hexdigest()

    def _place(self, maker: Any) -> Place:  # noqa: ANN401 - a function, a class, or a module's name
        module, name = (maker, None) if isinstance(maker, str) else (maker.__module__, maker.__qualname__.split(".<locals>")[0])
        top = module.partition(".")[0]
        if top not in self._tops:  # a plugin of another package
            spec = importlib.util.find_spec(top)
            file = Path((spec and spec.origin) or "")
            self._tops[top] = file.parents[1] if file.name == "__init__.py" else file.parent
        if self.file(module) is None:
            raise LookupError(f"there is no source of {module}")
        return module, name

    def _digest(self, places: tuple[Place, ...]) -> Mapping[str, str]:
        digests: dict[str, str] = {}
        for module, statements in sorted(self._reach(places).items()):
            total, imports = hashlib.sha256(), self._source(module).imports
            folder = (self.file(module) or Path()).parent
            for statement in sorted(statements, key=lambda statement: statement.line):
                # What an imported name stands for is no part of the syntax that uses it, and may be another library's.
                used = sorted({name.partition(".")[0] for name in statement.names} & imports.keys())
                total.update(f"{statement.digest} {[imports[name] for name in used]}\n".encode())
                for file in (file for name in statement.data for file in _files(folder / name)):
                    total.update(f"{file.relative_to(folder).as_posix()} ".encode() + file.read_bytes())
            digests[module] = total.hexdigest()
        return digests

    def _reach(self, places: Iterable[Place]) -> Mapping[str, set[Definition]]:
        reached: dict[str, set[Definition]] = defaultdict(set)
        seen, left = set[Place](), list(places)
        while left:
            if (place := left.pop()) not in seen:
                seen.add(place)
                found, leads = self._opened(place)
                if found:
                    reached[place[0]].update(found)
                left += leads
        return reached

    def _opened(self, place: Place) -> tuple[frozenset[Definition], tuple[Place, ...]]:
        """What stands in a place, and where that leads; of any place of a module also what its import runs."""
        if place not in self._places:
            self._places[place] = self._open(*place) if self.file(place[0]) else (frozenset(), ())
        return self._places[place]

    def _open(self, module: str, name: str | None) -> tuple[frozenset[Definition], tuple[Place, ...]]:
        source = self._source(module)
        found = {*self._found(module, name), *source.always}
        leads = {(package, "") for package in _packages(module)} | set(self._imported(module, name))
        for statement in found:
            leads.update(self._used(module, statement))
        if name and "." in name:  # a method alone: whom it asks of its class
            kind = name.rpartition(".")[0]
            asked = (each.partition(".") for statement in source.of(name) for each in statement.names)
            leads |= {
                (module, f"{kind}.{each}") for who, _, each in asked if who in {"self", "cls"} and source.of(f"{kind}.{each}")
            }
        return frozenset(found), tuple(leads)

    def _found(self, module: str, name: str | None) -> tuple[Definition, ...]:
        """Statements of a module that bind a name; of a method's, what its class says outside of methods too."""
        source = self._source(module)
        if name is None:
            return source.every
        kind = name.rpartition(".")[0]
        return (*source.of(name), *(source.of(f"{kind}.") if kind else ()))

    def _imported(self, module: str, name: str | None) -> Iterator[Place]:
        """Where a name comes from that a module imports; of a whole module, everything that it imports."""
        source = self._source(module)
        if name is None:
            yield from (self._target(module, dotted) for dotted in source.imports.values())
        elif name in source.imports:
            yield self._target(module, source.imports[name])
        elif name and not source.of(name):
            yield module, None  # it is made by other means, or there is none

    def _used(self, module: str, statement: Definition) -> Iterator[Place]:
        """What the names in a statement stand for, of its module and of those that it imports."""
        source = self._source(module)
        yield from (self._target(module, dotted) for dotted in statement.imports.values())
        for dotted in statement.names:
            name, _, attribute = dotted.partition(".")
            if imported := statement.imports.get(name) or source.imports.get(name):
                target = self._target(module, imported)
                whole = target[1] is None and attribute
                yield self._target(module, f"{imported}.{attribute}") if whole else target
            elif source.of(name):
                yield module, name

    def _target(self, module: str, dotted: str) -> Place:
        """Split a dotted name into its module and what stands in it."""
        level = len(dotted) - len(name := dotted.lstrip("."))
        if level:
            file = self.file(module)
            around = module.split(".") if file and file.name == "__init__.py" else module.split(".")[:-1]
            name = ".".join([*around[: len(around) - level + 1], name]).rstrip(".")
        steps = name.split(".")
        for count in range(len(steps), 0, -1):
            if self.file(".".join(steps[:count])):
                return ".".join(steps[:count]), steps[count] if count < len(steps) else None
        return name, None

    def _source(self, module: str) -> SourceFile:
        if module not in self._sources:
            file = self.file(module)
            if file is None:
                raise LookupError(f"there is no source of {module}")
            self._sources[module] = read(file.read_text(encoding="utf-8"))
        return self._sources[module]


@cache
def here() -> Sources:
    """The sources of this process."""
    return Sources()


def _packages(module: str) -> Iterator[str]:
    """The packages around a module."""
    steps = module.split(".")
    return (".".join(steps[:count]) for count in range(1, len(steps)))


def _files(path: Path) -> list[Path]:
    """A file, or the data below a folder."""
    return (
        [path]
        if path.is_file()
        else sorted(file for file in path.rglob("*") if file.is_file() and file.suffix not in {".py", ".pyc"})
    )
