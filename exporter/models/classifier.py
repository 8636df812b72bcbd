"""An image classifier of transformers, whose features a pass compares: found, and named by its content. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from engines.errors import UnsupportedError
from exporter.models import locate, safetensors_header
from exporter.models.checkpoint import Checkpoint
from exporter.models.safetensors_header import read_json

#: Component of the checkpoint that `find` returns; beside it PREPROCESSOR holds size, mean and deviation.
CLASSIFIER, PREPROCESSOR = "classifier", "preprocessor"
_SAID = "preprocessor_config.json"


def find(name: str, revision: str | None, root: Path, where: str) -> Checkpoint:
    """The classifier as a checkpoint of one network: looked for beside the recipe (`root`), in the working directory, on the hub.

    Raises:
        RecipeError: there is nothing under that name.
        UnsupportedError: no classifier is there, or nothing says how it wants its pictures.

    """
    return _opened(*locate.network(name, revision, root, where, CLASSIFIER, [_SAID]))


def _opened(folder: Path, told: dict[str, str]) -> Checkpoint:
    config = read_json(folder / "config.json")
    kind = next((name for name in config.get("architectures") or () if name.endswith("ForImageClassification")), None)
    if kind is None:
        raise UnsupportedError(
            f"{folder} holds no image classifier: its config.json names {config.get('architectures')}.\n"
            "  Take a model that transformers loads as AutoModelForImageClassification."
        )
    if "auto_map" in config:
        raise UnsupportedError(
            f"{folder}: its classifier is code that comes with the model, and none is run.\n  Take one of transformers' own."
        )
    if not (folder / _SAID).is_file():
        raise UnsupportedError(
            f"{folder} has no {_SAID}, so nothing says how its classifier wants its pictures.\n"
            "  Save the image processor that it was trained with beside it: processor.save_pretrained(folder)."
        )
    configs = {
        "model_index": {CLASSIFIER: ["transformers", kind]},
        CLASSIFIER: config,
        PREPROCESSOR: read_json(folder / _SAID),
    }
    return Checkpoint(configs, told, {CLASSIFIER: safetensors_header.files(folder)}, {CLASSIFIER: folder})
