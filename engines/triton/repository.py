"""A bundle → a model repository: a folder per model with its `config.pbtxt` and its only version, 1."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal
from uuid import uuid4

from engines.bundle import MANIFEST, Bundle
from engines.disk import require_folder, writing
from engines.errors import UnsupportedError
from engines.manifest import EngineFiles, PartEntry
from engines.triton import config

#: Whose engines Triton runs → the name of its backend. It has none for OpenVINO's and TensorRT-RTX's files as bundles hold them.
BACKENDS = {"onnxruntime": "onnxruntime", "tensorrt": "tensorrt"}
Backend = Literal["onnxruntime", "tensorrt"]
#: Requests that the pipeline works on at once, so that there are calls to join.
_INSTANCES = 4
_MODEL = '''"""The pipeline: Triton's Python backend finds its class here. It imports nothing but engines, which has no torch."""

from engines.triton.model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def write(path: Path, folder: Path, backend: Backend = "onnxruntime") -> list[str]:
    """Write the repository of the bundle at `path` into a folder that is empty or not there; return its models' names.

    Args:
        path: the bundle's folder.
        folder: of the repository.
        backend: whose engines; a part that has none of it is that of ONNX Runtime.

    Raises:
        UnsupportedError: the bundle has no such engines, takes inputs that the pipeline's model does not know, or `folder` holds
            something.
        BundleError: a file is damaged.
        MachineError: it cannot be written.

    """
    bundle = Bundle.open(path)
    about = bundle.manifest
    if about.inputs:
        raise UnsupportedError(f"the pipeline's model takes no {', '.join(about.inputs)}; Triton cannot serve this bundle.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UnsupportedError(f"{folder} is there and not empty, and nothing is written over. Remove it, or name another.")
    chosen = {name: _engine(name, part, backend) for name, part in about.running().items()}
    require_folder(folder.parent)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.partial")
    try:
        with writing(folder.parent, f"writing {folder}"):
            for name, part in about.running().items():
                own, version = network(about.name, name), temporary / network(about.name, name) / "1"
                version.mkdir(parents=True)
                files = [bundle.path(file) for file in part.engines[chosen[name]].files]
                for file in files:
                    shutil.copyfile(file, version / file.name)
                (version.parent / "config.pbtxt").write_text(
                    config.of_part(own, part, BACKENDS[chosen[name]], files[0].name, _gpus(part.engines[chosen[name]])),
                    encoding="utf-8",
                )
            pipeline = temporary / about.name
            _pipeline(bundle, pipeline / "1")
            (pipeline / "config.pbtxt").write_text(config.of_pipeline(about.name, _INSTANCES), encoding="utf-8")
            if folder.exists():
                folder.rmdir()
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [about.name, *(network(about.name, name) for name in chosen)]


def network(bundle: str, part: str) -> str:
    """Name of the model that is one part of a bundle."""
    return f"{bundle}.{part}"


def _engine(name: str, part: PartEntry, backend: str) -> str:
    """Name the backend whose engine of a part is taken."""
    for wanted in (backend, "onnxruntime"):
        if wanted in part.engines:
            return wanted
    raise UnsupportedError(
        f"{name} has engines of {', '.join(part.engines) or 'nothing'}, and Triton runs those of {' and '.join(BACKENDS)}. "
        "Build it with the target onnxruntime."
    )


def _gpus(engine: EngineFiles) -> dict[str, str]:
    """Compute capability → the file that is for it, where an engine's files are each for other GPUs."""
    names = [file.rpartition("/")[2] for file in engine.files]
    asked = engine.options.get("compute_capabilities", ())
    return {gpu: name for gpu in asked for name in names if f".sm{gpu.replace('.', '')}." in name}


def _pipeline(bundle: Bundle, version: Path) -> None:
    """Write the program, and beside it what of the bundle the pipeline itself reads."""
    (version / "bundle").mkdir(parents=True)
    (version / "model.py").write_text(_MODEL, encoding="utf-8")
    about = bundle.manifest
    tables = [name for entry in about.samplers for name in (entry.file, entry.image) if name]
    tables += [about.process] if about.process else []
    for name in (*tables, *(entry.file for entry in about.tokenizers.values())):
        place = version / "bundle" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path(name), place)
    shutil.copyfile(bundle.folder / MANIFEST, version / "bundle" / MANIFEST)
