"""A network that sees a picture as a row of numbers, or as probabilities of classes: found, and named by its content."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from engines.errors import UnsupportedError
from exporter.models import locate, pretrained
from exporter.models.checkpoint import Checkpoint
from exporter.models.safetensors_header import read_json

_PREPARED = ("preprocessor_config.json", "processor_config.json")
_TORCHSCRIPT = (".pt", ".ts")
#: Pictures that are looked at by one call.
_TOGETHER = 32


@dataclass(frozen=True)
class FeatureNetwork:
    """What sees pictures. Imports torch when it is first used.

    Attributes:
        place: a folder of transformers, or a TorchScript file that takes uint8 (N, 3, height, width) and resizes by itself, as
            those of StyleGAN2-ADA's metrics do (inception-2015-12-05.pt, vgg16.pt).
        classifies: whether classes are asked for.

    """

    place: Path
    classifies: bool = False

    @classmethod
    def find(cls, name: str, revision: str | None, root: Path, *, classifies: bool = False) -> Self:
        """Look beside `root`, in the working directory, and on the hub.

        Raises:
            RecipeError: there is nothing under that name.
            UnsupportedError: what is there is no network of pictures, or the hub is not reached.

        """
        if name.endswith(_TORCHSCRIPT) and (file := locate.first(locate.candidates(name, root), Path.is_file)):
            return cls(file, classifies)
        folder, _ = locate.network(name, revision, root, "model", "features", _PREPARED)
        config = read_json(folder / "config.json")
        kinds = [str(kind) for kind in config.get("architectures") or ()]
        if "auto_map" in config:
            raise UnsupportedError(f"{folder}: its network is code that comes with the model, and none is run.")
        if classifies and not any(kind.endswith("ForImageClassification") for kind in kinds):
            raise UnsupportedError(
                f"{folder} holds no image classifier: its config.json names {kinds}.\n"
                "  Take a model that transformers loads as AutoModelForImageClassification, or inception-2015-12-05.pt."
            )
        if not any((folder / each).is_file() for each in _PREPARED):
            raise UnsupportedError(f"{folder} has no {_PREPARED[0]}, so nothing says how its pictures are prepared.")
        return cls(folder, classifies)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the file, or every file of the folder."""
        if self.place.is_file():
            with self.place.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return Checkpoint({"model_index": {}, "tokenizer": {}}, {}, {}, {"tokenizer": self.place}).digest("tokenizer")

    @cached_property
    def preparation(self) -> str:
        """How pictures come to the network's size, in words; a distance depends on it."""
        if self.place.is_file():
            return f"resized inside {self.place.name}"
        told = next(read_json(self.place / each) for each in _PREPARED if (self.place / each).is_file())
        told = told.get("image_processor", told)
        if not told.get("do_resize", True):
            return "in their own size"
        size = " × ".join(str(side) for side in dict(told.get("size") or {}).values())
        by = told.get("resample")
        return f"resized to {size or 'its size'}" + ("" if by is None else f" by {Image.Resampling(by).name.lower()}")

    def features(self, images: np.ndarray) -> np.ndarray:
        """Rows of uint8 pictures (N, height, width, 3): float64 (N, width).

        Raises:
            UnsupportedError: the network has no pooled features.

        """
        return self._rows(images)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Classes of pictures, as above: float64 (N, classes), each row's sum is 1.

        Raises:
            UnsupportedError: what the network gives are no probabilities.

        """
        if not self.classifies:
            raise TypeError(f"{self.place} was found for its features")
        found = self._rows(images)
        if found.min() < 0 or np.abs(found.sum(1) - 1).max() > 1e-3:
            raise UnsupportedError(f"{self.place} gives no probabilities of classes: its rows' sums are not 1.")
        return found

    def _rows(self, images: np.ndarray) -> np.ndarray:
        import torch  # noqa: PLC0415 - a sweep's file is read without it

        found = []
        with torch.no_grad():
            for first in range(0, len(images), _TOGETHER):
                rows = self._look(images[first : first + _TOGETHER])
                found.append(rows.flatten(1).double().cpu().numpy())
        return np.concatenate(found)

    @cached_property
    def _look(self) -> Callable[[np.ndarray], Any]:
        """From uint8 pictures to a tensor, a row of which is a picture's."""
        return self._script() if self.place.is_file() else self._transformer()

    def _script(self) -> Callable[[np.ndarray], Any]:
        import torch  # noqa: PLC0415 - as above

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with warnings.catch_warnings():  # torch asks for torch.export, in which the published networks are not saved
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                network = torch.jit.load(self.place, map_location=device).eval()
            except RuntimeError as error:
                told = str(error).splitlines()[0]
                raise UnsupportedError(f"{self.place} is no TorchScript file ({told}). Save one, or name a folder.") from error
        takes = {argument.name for argument in network.forward.schema.arguments}
        asked = {name: True for name in (("no_output_bias",) if self.classifies else ("return_features",)) if name in takes}
        return lambda some: network(torch.from_numpy(some).permute(0, 3, 1, 2).contiguous().to(device), **asked)

    def _transformer(self) -> Callable[[np.ndarray], Any]:
        from transformers import AutoImageProcessor  # noqa: PLC0415 - as above

        network, device = pretrained.opened("AutoModelForImageClassification" if self.classifies else "AutoModel", self.place)
        prepare = AutoImageProcessor.from_pretrained(self.place, local_files_only=True)
        pair = {"text_config", "vision_config"} <= network.config.to_dict().keys()

        def look(some: np.ndarray) -> Any:  # noqa: ANN401 - torch's, unknown here
            given = prepare([Image.fromarray(each) for each in some], return_tensors="pt").to(device)
            if self.classifies:
                return network(**given).logits.softmax(1)
            rows = (network.get_image_features if pair else network)(**given).pooler_output
            if rows is None:
                raise UnsupportedError(f"{self.place} has no pooled features. Take one that has, such as facebook/dinov2-large.")
            return rows

        return look
