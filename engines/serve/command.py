"""`t2iexport serve BUNDLE…`, which is also `python -m engines serve`: parse, open, listen, and stop in good order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engines.errors import MissingDependency, UnsupportedError

if TYPE_CHECKING:
    from engines.pipeline import Pipeline
    from engines.serve.options import ServeOptions
    from engines.sessions import Wrap

#: Where keys are read from beside a file; on a command line every user of the machine would see them.
_KEYS = "T2IEXPORT_API_KEYS"
#: What the extra [serve] installs, by the name that is imported.
_LIBRARIES = {"starlette", "uvicorn", "prometheus_client", "python_multipart", "anyio"}


@click.command("serve")
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BUNDLE...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is every one of the machine.")
@click.option("--port", type=click.IntRange(0, 65535), default=8188, show_default=True, help="Port; 0: any that is free.")
@click.option("--backend", help="Which of the bundles' engines to run.")
@click.option(
    "--keys", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=f"File of keys, one a line; or {_KEYS}."
)
@click.option("--cors", multiple=True, metavar="ORIGIN", help="Origin of a web page elsewhere that may call. May be repeated.")
@click.option("--lora", "loras", multiple=True, metavar="NAME=FILE", help="A LoRA that requests may name. May be repeated.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Batching, limits: docs/serve.md. May be repeated.")
def serve(
    bundles: tuple[Path, ...],
    host: str,
    port: int,
    backend: str | None,
    keys: Path | None,
    cors: tuple[str, ...],
    loras: tuple[str, ...],
    pairs: tuple[str, ...],
) -> None:
    """Serve bundles over HTTP.

    OpenAI's images API, A1111's API, and a page to draw with.

    Each bundle is a model by its folder's name, or NAME=FOLDER; the first is drawn with where a client names none.
    """
    try:
        from engines.serve import running  # noqa: PLC0415 - --help stays quick, and most installations have no server
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in _LIBRARIES:
            raise MissingDependency(library, "serve") from error
        raise
    from engines.pipeline import Pipeline  # noqa: PLC0415

    options = _options(pairs, keys, cors, _files(loras))

    def opener(path: Path, wrap: Wrap) -> AbstractContextManager[Pipeline]:
        return Pipeline.open(path, backend, wrap=wrap)

    running.run(named(bundles), options, opener, host, port)


def _options(pairs: Sequence[str], keys: Path | None, cors: tuple[str, ...], loras: dict[str, Path]) -> ServeOptions:
    from engines.serve.options import ServeOptions  # noqa: PLC0415

    told: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = (word.strip() for word in pair.partition("="))
        if not equals or key in told:
            raise UnsupportedError(f"--set {pair}: {'it is set twice' if equals else 'write KEY=VALUE'}.")
        told[key] = value
    lines = os.environ.get(_KEYS, "").replace(",", "\n").splitlines() + (keys.read_text().splitlines() if keys else [])
    given: dict[str, Any] = {"keys": tuple(line.strip() for line in lines if line.strip()), "cors": cors, "loras": loras}
    if keys and not given["keys"]:
        raise UnsupportedError(f"{keys} holds no key. Write one a line, or leave --keys out.")
    return ServeOptions.of(told, **given)


def _files(loras: Sequence[str]) -> dict[str, Path]:
    """LoRAs by name; raise UnsupportedError for one that has none, or is not there."""
    found: dict[str, Path] = {}
    for given in loras:
        name, equals, file = given.partition("=")
        if not equals or not name or name in found:
            raise UnsupportedError(f"--lora {given}: {'it is named twice' if name in found else 'write NAME=FILE'}.")
        if not Path(file).is_file():
            raise UnsupportedError(f"--lora {given}: there is no file {file}.")
        found[name] = Path(file)
    return found


def named(bundles: Sequence[Path]) -> dict[str, Path]:
    """Bundles by their names: NAME=FOLDER, or the folder's own name; raise UnsupportedError where two share one."""
    found: dict[str, Path] = {}
    for given in bundles:
        name, equals, folder = str(given).partition("=")
        path = Path(folder) if equals and not given.exists() else given
        name = name if path is not given else path.resolve().name
        if name in found:
            raise UnsupportedError(f"two bundles are called {name!r}: {found[name]} and {path}. Name one: NAME={path}")
        found[name] = path
    return found
