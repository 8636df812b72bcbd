"""The library onnxruntime-web, which runs graphs in a browser: one version, from npm's registry or from a file or folder."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

from engines.errors import MachineError, UnsupportedError

VERSION = "1.30.0"
#: Of the package as npm's registry has it; npm's own notation.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
#: For processors alone, and for WebGPU: each is a module, and the WebAssembly that it loads.
FILES = tuple(
    f"{name}.{ending}"
    for module, binary in (("ort.wasm.min", "threaded"), ("ort.webgpu.min", "threaded.asyncify"))
    for name, ending in ((module, "mjs"), (f"ort-wasm-simd-{binary}", "mjs"), (f"ort-wasm-simd-{binary}", "wasm"))
)
_PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
_REGISTRY = "https://registry.npmjs.org/"
_ANYWHERE = (
    f"Fetch it where there is a network, with `npm pack onnxruntime-web@{VERSION}` or from "
    f"{_REGISTRY}onnxruntime-web/-/{_PACKAGE}, and name the file: --onnxruntime-web {_PACKAGE}"
)
#: Seconds without an answer.
_PATIENCE = 60


def files(source: Path | None = None) -> dict[str, bytes]:
    """Name of every file of the library that a site needs → its bytes.

    Args:
        source: the package as npm packs it (.tgz), or its folder (`node_modules/onnxruntime-web`); by default it is fetched.

    Raises:
        UnsupportedError: `source` is something else, or another version.
        MachineError: the registry is not reached.

    """
    if source is not None and source.is_dir():
        return _unpacked(source)
    if source is not None and not source.is_file():
        raise UnsupportedError(f"{source} is not there. Name the folder of onnxruntime-web {VERSION}, or its {_PACKAGE}.")
    where, data = (str(source), source.read_bytes()) if source else _fetched()
    found = f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}"
    if found != INTEGRITY:
        raise UnsupportedError(
            f"{where} is not npm's onnxruntime-web {VERSION}: its hash is {found[:19]}…, not {INTEGRITY[:19]}…. {_ANYWHERE}"
        )
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as package:
        return {name: _member(package, f"package/dist/{name}") for name in FILES}


def _member(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(name)
    if file is None:
        raise UnsupportedError(f"{name} is no file of onnxruntime-web {VERSION}.")
    with file:
        return file.read()


def _unpacked(folder: Path) -> dict[str, bytes]:
    try:
        version = json.loads((folder / "package.json").read_bytes())["version"]
        if version == VERSION:
            return {name: (folder / "dist" / name).read_bytes() for name in FILES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnsupportedError(f"{folder} is not the package onnxruntime-web: {error}. {_ANYWHERE}") from error
    raise UnsupportedError(f"{folder} is onnxruntime-web {version}, and pages are written for {VERSION}. {_ANYWHERE}")


def _fetched() -> tuple[str, bytes]:
    """Where the package comes from, and its bytes: by npm, with its registry and cache, or where there is none by HTTPS."""
    npm = shutil.which("npm")
    if npm is None:
        return _downloaded()
    with TemporaryDirectory() as folder:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--pack-destination", folder, "--silent"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)  # noqa: S603 - nothing of a user's
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise MachineError(f"npm cannot fetch onnxruntime-web {VERSION}:\n  {chr(10).join(said)}\n{_ANYWHERE}")
        return "what npm fetched", (Path(folder) / _PACKAGE).read_bytes()


def _downloaded() -> tuple[str, bytes]:
    """Fetch from the registry that npm's variable names, or from npm's own."""
    named = {name.lower(): value for name, value in os.environ.items()}  # npm takes it in either case
    registry = named.get("npm_config_registry") or _REGISTRY
    url = f"{registry.rstrip('/')}/onnxruntime-web/-/{_PACKAGE}"
    if not url.startswith("https://"):
        raise UnsupportedError(f"the registry {registry} is not reached by HTTPS. {_ANYWHERE}")
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as response:  # noqa: S310 - HTTPS, as checked
            return url, response.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise MachineError(f"{url} cannot be fetched: {getattr(error, 'reason', error)}. {_ANYWHERE}") from error
