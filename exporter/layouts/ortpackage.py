"""ONNX Runtime's model package: `manifest.json` names a component per network, each with variants by execution provider."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

#: Of the package's schema (onnxruntime, model_package/README.md).
_SCHEMA = "1.0"
#: Plain graphs run on any provider; a variant names one.
_VARIANTS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def write(folder: Path, name: str, components: Sequence[str]) -> None:
    """Make a package of a folder that holds a graph per component, and what lies beside: that becomes its one shared asset."""
    asset = folder / "shared_assets" / "pipeline"
    asset.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        if path.name not in {"shared_assets", *components}:
            shutil.move(path, asset / path.name)
    for component in components:
        (asset / component).mkdir(exist_ok=True)
        shutil.move(folder / component / "config.json", asset / component / "config.json")
    digest = directory_digest(asset)
    asset.rename(asset.with_name(f"sha256-{digest}"))
    graph = {"ort": {"model_file": "model.onnx"}}
    body = {
        component: {
            "variants": {
                variant: {"variant_directory": component, "ep": provider, "executor_info": graph}
                for variant, provider in _VARIANTS.items()
            }
        }
        for component in components
    }
    about = {"schema_version": _SCHEMA, "package_name": name, "components": body}
    content = {**about, "additional_metadata": {"pipeline": f"sha256:{digest}"}}
    (folder / "manifest.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def directory_digest(folder: Path) -> str:
    """SHA-256 of a shared asset as packages count it: over a line per file, its digest and its path, in the paths' order."""
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    lines = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in files)
    return hashlib.sha256(lines.encode()).hexdigest()
