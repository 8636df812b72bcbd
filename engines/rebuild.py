"""Build a bundle's engines again on the machine that will run them, from the ONNX inside. Needs no torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from engines import bundle, plugins
from engines.bundle import Bundle, EngineFiles, PartEntry
from engines.errors import UnsupportedError


def rebuild(path: Path, backend: str | None = None, say: Callable[[str], Any] = lambda _: None) -> list[str]:
    """Replace the engines of one backend, or of every backend, with the options that the bundle keeps.

    They are built first and then replace the old ones, with the manifest; nothing else in the folder is touched. Verdicts of
    engines that were built again are dropped, because they speak of the old ones.

    Returns:
        What is new, one line each.

    Raises:
        BundleError: the bundle is damaged.
        UnsupportedError: the bundle has no such backend, or cannot be written to, or the backend cannot build here.
        MissingDependency: the backend's library is not installed.

    """
    final = path.resolve()
    opened = Bundle.open(final)
    opened.verify()
    manifest = opened.manifest
    known = sorted({name for part in manifest.parts.values() for name in part.engines})
    if backend is not None and backend not in known:
        raise UnsupportedError(f"{path} has no engines of {backend!r}{plugins.did_you_mean(backend, known)}")
    chosen = [backend] if backend else known
    temporary = final / f".rebuild.{uuid4().hex[:8]}.partial"  # inside: beside it may be another disk, or another's folder
    try:
        temporary.mkdir()
    except OSError as error:
        raise UnsupportedError(
            f"{path} cannot be written to ({error.strerror}), and its engines lie inside. Copy it elsewhere, and name the copy."
        ) from error
    try:
        parts, made = dict(manifest.parts), list[str]()
        stays = {
            file: entry
            for file, entry in manifest.files.items()
            if not file.startswith(tuple(f"engines/{name}/" for name in chosen))
        }
        for name in chosen:
            for part, entry in manifest.parts.items():
                if name in entry.engines:
                    say(f"{name}: {part}")
                    engine = _build(opened, entry, name, temporary)
                    parts[part] = parts[part].model_copy(update={"engines": {**parts[part].engines, name: engine}})
                    made.append(f"{part}: built again with {name} {engine.version}")
        told = [f"{name} was built again and is unchecked since; t2iexport check says how good it is" for name in chosen]
        mixed = {name for name, taken in manifest.runs().items() if not set(taken.values()).isdisjoint(chosen)}
        verdicts = tuple(
            verdict
            for verdict in manifest.verdicts
            if verdict.backend not in chosen and not (verdict.part == "end to end" and verdict.backend in mixed)
        )
        notes = tuple(dict.fromkeys((*manifest.notes, *told)))
        bundle.write(temporary, bundle.draft(manifest, parts=parts, verdicts=verdicts, notes=notes), stays)
        bundle.publish(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [*made, *told]


def _build(opened: Bundle, entry: PartEntry, name: str, folder: Path) -> EngineFiles:
    """Build one part's engine into `folder`, as if that were the bundle's."""
    old = entry.engines[name]
    backend = plugins.load("backends", name).model_validate(old.options).here
    graph = entry.onnx.get(str(backend.opset))
    if graph is None:
        have = ", ".join(sorted(entry.onnx))
        raise UnsupportedError(
            f"{name} now wants operator set {backend.opset}; this bundle's graphs have {have}. Build it again from its recipe."
        )
    backend.refuse(entry.precision)
    backend.refuse(entry.quantized.format.partition("-")[0] if entry.quantized else entry.precision)
    into = folder / "engines" / name
    into.mkdir(parents=True, exist_ok=True)
    files = backend.build(opened.path(graph.files[0]), entry.signature, into)
    # A backend that runs the graph itself leaves nothing in the folder, and returns the bundle's own files.
    roots = [folder if file.is_relative_to(folder) else opened.folder for file in map(Path, files)]
    relative = tuple(Path(file).relative_to(root).as_posix() for file, root in zip(files, roots, strict=True))
    return EngineFiles(options=backend.model_dump(mode="json"), opset=backend.opset, files=relative, version=backend.version)
