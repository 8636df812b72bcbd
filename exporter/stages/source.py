"""One source file, taken apart: what each statement defines, what it says without comments, and which names it uses."""

from __future__ import annotations

import ast
import contextlib
import gc
import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from engines.plugins import KINDS
from exporter.stages.store import default_root

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
#: Code in a string, for another process.
_TOLD = re.compile(r"\bfrom ((?:engines|exporter)[\w.]*) import (\w+)")


@dataclass(frozen=True)
class Definition:
    """A definition, or another statement that no function holds.

    Attributes:
        line: where it begins.
        binds: names that it defines, a method's behind its class's: `Table.play`; `Table.` is what stands there besides methods.
        digest: of its syntax; where it lies, comments, docstrings and a function's annotations are no part of it.
        names: those that it uses, with one attribute: `plugins.load`.
        imports: its own, name → dotted name of what it stands for.
        data: files and folders beside its module that it reads.

    """

    line: int
    binds: tuple[str, ...]
    digest: str
    names: tuple[str, ...] = field(compare=False)
    imports: Mapping[str, str] = field(compare=False)
    data: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceFile:
    """A file's statements, and the imports that stand outside of functions: name → dotted name of what it stands for."""

    every: tuple[Definition, ...]
    imports: Mapping[str, str]

    def of(self, name: str) -> tuple[Definition, ...]:
        """What defines a name; a class's methods among it."""
        return self._binding.get(name, ())

    @cached_property
    def always(self) -> tuple[Definition, ...]:
        """What an import runs and no name stands for."""
        return tuple(statement for statement in self.every if not statement.binds)

    @cached_property
    def _binding(self) -> Mapping[str, tuple[Definition, ...]]:
        found: dict[str, tuple[Definition, ...]] = defaultdict(tuple)
        for statement in self.every:
            for name in statement.binds:
                found[name] += (statement,)
        return dict(found)


@cache
def read(text: str) -> SourceFile:
    """Take a source apart, or remember how another process did: the cache keeps that by content."""
    statements, imports = remembered(text, lambda: _parsed(text))
    return SourceFile(tuple(Definition(*map(_plain, each)) for each in statements), imports)


def remembered(sources: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - a value of JSON
    """What `make` gives, a value of JSON, or what it gave for the same sources before, in whichever process."""
    place = default_root() / "code" / f"{hashlib.sha256(f'{_reader()} {sources}'.encode()).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(place.read_bytes())
    made = make()
    partial = place.with_suffix(f".{uuid4().hex[:8]}")
    with contextlib.suppress(OSError):  # it saves time, which is worth no failure
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(made), encoding="utf-8")
        partial.replace(place)
    return made


def _parsed(text: str) -> tuple[list[Any], Mapping[str, str]]:
    statements: list[Definition] = []
    imports: dict[str, str] = {}
    with _uncollected():
        for node in _outer(ast.parse(text).body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports |= _imports(node)
            elif isinstance(node, ast.ClassDef):
                statements += _class(node)
            else:
                reader = _Reader([node])
                statements.append(reader.statement(node.lineno, _bound(node)))
                if not isinstance(node, _FUNCTIONS):
                    imports |= reader.imports
    return [list(vars(each).values()) for each in statements], imports


class _Reader:
    """Walks over syntax trees once, for all that a statement is asked."""

    def __init__(self, nodes: Iterable[ast.AST]) -> None:
        self.names: set[str] = set()
        self.imports: dict[str, str] = {}
        self.data: list[str] = []
        self._seen: list[str] = []
        self._placed: set[int] = set()
        for node in nodes:
            self._walk(node)

    def statement(self, line: int, binds: tuple[str, ...]) -> Definition:
        """What was seen."""
        digest = hashlib.sha256("\n".join(self._seen).encode(errors="surrogatepass")).hexdigest()
        return Definition(line, binds, digest, tuple(sorted(self.names)), self.imports, tuple(self.data))

    def _walk(self, node: ast.AST) -> None:
        kind = type(node)
        self._seen.append(kind.__name__)
        look = self._LOOKS.get(kind)
        if look and look(self, node):
            return
        for name in _fields(kind):
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                self._walk(value)
            elif isinstance(value, list):
                self._seen.append(f"{name} {len(value)}")
                for each in _outer(value) if name == "body" else value:
                    self._walk(each) if isinstance(each, ast.AST) else self._seen.append(repr(each))
            else:
                self._seen.append(repr(value))

    # What is special of a node; whether that is all.

    def _name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Store):
            self.names.add(node.id)

    def _attribute(self, node: ast.Attribute) -> bool:
        """An attribute of a name is one name, lest all of a module count where one thing of it is used."""
        if node.attr == "parent" and id(node) not in self._placed and _is_here(node):
            self.data.append(".")
        if isinstance(node.value, ast.Name):
            self.names.add(f"{node.value.id}.{node.attr}")
            self._seen += [node.value.id, node.attr]
            return True
        return False

    def _constant(self, node: ast.Constant) -> None:
        """Code for another process."""
        if isinstance(node.value, str) and " import " in node.value:
            self.imports |= {f"{module}.{name}": f"{module}.{name}" for module, name in _TOLD.findall(node.value)}

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.imports |= _imports(node)

    def _call(self, node: ast.Call) -> None:
        """`plugins.load` of a plugin by its name is an import."""
        match node:
            case ast.Call(func=ast.Attribute(attr="load"), args=[ast.Constant(kind), ast.Constant(name)]) if kind in KINDS:
                self.imports[f"{kind} {name}"] = f"{KINDS[kind]}.{name}"

    def _operation(self, node: ast.BinOp) -> None:
        """`Path(__file__).parent / "name"` is data, and the folder alone all the data in it."""
        if _is_here(node.left) and isinstance(node.right, ast.Constant):
            self.data.append(str(node.right.value))
            self._placed.add(id(node.left))

    _LOOKS: ClassVar[Mapping[type, Callable[[Any, Any], bool | None]]] = {
        ast.Name: _name,
        ast.Attribute: _attribute,
        ast.Constant: _constant,
        ast.Import: _import,
        ast.ImportFrom: _import,
        ast.Call: _call,
        ast.BinOp: _operation,
    }


def _is_here(node: ast.AST) -> bool:
    """Whether this is `Path(__file__).parent`."""
    match node:
        case ast.Attribute(value=ast.Call(args=[ast.Name(id="__file__")]), attr="parent"):
            return True
        case _:
            return False


@cache
def _fields(kind: type[ast.AST]) -> tuple[str, ...]:
    """Fields of a node that say what runs: a function's annotations do not, those in a class may."""
    idle = {"ctx", "type_comment", "returns", *(() if kind is ast.AnnAssign else ("annotation",))}
    return tuple(name for name in kind._fields if name not in idle)


def _outer(body: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
    """Statements that run: neither docstrings, nor what only a type checker sees."""
    for node in body:
        match node:
            case ast.Expr(ast.Constant(str())):
                continue
            case ast.If(ast.Name("TYPE_CHECKING")):
                yield from _outer(node.orelse)
            case _:
                yield node


def _class(node: ast.ClassDef) -> list[Definition]:
    """What a class says outside of its methods, and each of these."""
    methods = [each for each in node.body if isinstance(each, _FUNCTIONS)]
    rest = [*node.decorator_list, *node.bases, *node.keywords]
    rest += [each for each in _outer(node.body) if not isinstance(each, _FUNCTIONS)]
    head = _Reader(rest).statement(node.lineno, (node.name, f"{node.name}."))
    return [head, *(_Reader([each]).statement(each.lineno, (node.name, f"{node.name}.{each.name}")) for each in methods)]


def _bound(node: ast.stmt) -> tuple[str, ...]:
    """Names that a statement outside of functions defines; none of one that does more than that."""
    targets: list[ast.expr] = []
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return (node.name,)
        case ast.Assign():
            targets = [each for target in node.targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
        case ast.AnnAssign():
            targets = [node.target]
    names = tuple(each.id for each in targets if isinstance(each, ast.Name))
    return names if len(names) == len(targets) else ()


def _imports(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Name → dotted name of what it stands for; a module's own dotted name, and a star, stand for all of it."""
    if isinstance(node, ast.Import):
        return {each.asname or each.name: each.name for each in node.names}
    module = "." * node.level + (node.module or "")
    joint = "" if module.endswith(".") else "."
    return {each.asname or each.name: f"{module}{joint}{each.name}" if each.name != "*" else module for each in node.names}


@cache
def _reader() -> str:
    """Who reads: another Python may see another tree, these files may change, and so may the folders of plugins."""
    own = b"".join(Path(__file__).with_name(name).read_bytes() for name in ("closure.py", "source.py"))
    return f"{sys.version_info[:2]} {KINDS} {hashlib.sha256(own).hexdigest()}"


def _plain(value: Any) -> Any:  # noqa: ANN401 - a value of JSON
    return tuple(value) if isinstance(value, list) else value


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Syntax trees are many small objects that all live: looking for garbage among them takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
