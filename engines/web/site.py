"""A bundle as a static folder: a page, onnxruntime-web and the bundle's graphs, which need no server but one that sends files."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, cast
from uuid import uuid4

from engines.bundle import Bundle
from engines.disk import require_folder, writing
from engines.errors import BundleError, UnsupportedError
from engines.strict import read_bytes, read_json
from engines.web import onnxruntime_web
from engines.web.model import described

_STATIC = Path(__file__).parent / "static"
#: What the page reads first, and what says that a folder is a site of ours.
MODEL = "model.json"
_LIMIT = 16 * 2**20
#: Bytes up to which a file is sent in one piece: GitHub warns above 50 MiB, and refuses above 100.
PIECE = 50_000_000


def write(path: Path, folder: Path, library: Path | None = None) -> int:
    """Write the site of the bundle at `path` into `folder`, over one that lies there; return its size in bytes.

    Args:
        path: the bundle's folder.
        folder: a new one, an empty one (hidden files do not count), or a site, of which what is no longer needed is removed.
        library: onnxruntime-web as `onnxruntime_web.files` takes it; by default it is fetched.

    Raises:
        UnsupportedError: the bundle asks for something that a page does not do, or `folder` holds something else.
        BundleError: the bundle is damaged.
        MachineError: npm's registry is not reached, or a file cannot be written.

    """
    bundle = Bundle.open(path)
    model = described(bundle)
    needed = {file for part in model["parts"].values() for file in part["files"]}
    needed |= {entry["file"] for key in ("tokenizers", "samplers") for entry in model[key]}
    sources = {name: bundle.path(name) for name in sorted(needed)}
    before = _before(folder)
    fixed = {f"onnxruntime-web/{name}": data for name, data in onnxruntime_web.files(library).items()}
    fixed |= {file.name: file.read_bytes() for file in sorted(_STATIC.iterdir()) if file.is_file()}
    fixed[".nojekyll"] = b""  # else GitHub would look for templates in it
    sizes = {name: bundle.manifest.files[name].size for name in sources}
    pieces = {name: _pieces(name, size) for name, size in sizes.items()}
    model["library"] = onnxruntime_web.VERSION
    model["files"] = {name: {"size": size, "pieces": pieces[name]} for name, size in sizes.items()}
    listed = {*fixed, *(piece for own in pieces.values() for piece in own), MODEL}
    require_folder(folder)
    _put(folder / MODEL, _json({"site": sorted(before | listed)}))  # whoever finds half of it knows it for a site
    written = sum(_put(folder / name, data) for name, data in fixed.items())
    for name, own in pieces.items():
        with sources[name].open("rb") as file:
            written += sum(_put(folder / piece, file.read(PIECE)) for piece in own)
    for name in before - listed:
        (folder / name).unlink(missing_ok=True)
    return written + _put(folder / MODEL, _json({**model, "site": sorted(listed)}))


def _json(content: dict[str, Any]) -> bytes:
    return f"{json.dumps(content, indent=1)}\n".encode()


def _pieces(name: str, size: int) -> list[str]:
    count = -(-size // PIECE)
    return [name] if count <= 1 else [f"{name}.{number}" for number in range(count)]


def _before(folder: Path) -> set[str]:
    """Files of the site that lies there, none where there is none; raise UnsupportedError where something else does."""
    if not folder.exists() or (folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())):
        return set()
    try:
        content: Any = read_json(read_bytes(folder / MODEL, _LIMIT), folder / MODEL)
        names = cast("list[str]", content["site"])
        inside = [name for name in names if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts]
    except (BundleError, KeyError, TypeError) as error:
        raise UnsupportedError(f"{folder} holds something else than a site, so nothing is written. Name another.") from error
    return set(inside)


def _put(place: Path, data: bytes) -> int:
    """Write one file, in one step; return its size."""
    partial = place.with_name(f".{place.name}.{uuid4().hex[:8]}.partial")
    with writing(place.parent, f"writing {place}"):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
    return len(data)
