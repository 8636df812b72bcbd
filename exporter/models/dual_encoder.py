"""A network of transformers that puts pictures and texts into one space, as CLIP does: found, and named by its content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

_PROCESSOR = "preprocessor_config.json"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model")
_BESIDE = (_PROCESSOR, "processor_config.json", *_TOKENIZER)
#: Pictures that are looked at by one call.
_TOGETHER = 32


@dataclass(frozen=True)
class DualEncoder:
    """What embeds pictures and texts. Imports torch when it is first used.

    Attributes:
        folder: of the network.
        processor: folder of its tokenizer and image processor.

    """

    folder: Path
    processor: Path

    @classmethod
    def find(cls, name: str, processor: str | None, revision: str | None, root: Path) -> Self:
        """Look beside `root`, in the working directory, and on the hub; `processor` is None where it lies with the network.

        Raises:
            RecipeError: there is nothing under a name.
            UnsupportedError: what is there lacks an encoder, or what prepares the inputs; or the hub is not reached.

        """
        folder, _ = locate.network(name, revision, root, "model", "dual_encoder", _BESIDE)
        beside = folder
        if processor is not None:
            beside, _ = locate.network(processor, None, root, "processor", "processor", _BESIDE, weights=False)
        config = read_json(folder / "config.json")
        if "auto_map" in config or not {"text_config", "vision_config"} <= config.keys():
            raise UnsupportedError(
                f"{folder} holds no encoders of pictures and texts: its config.json names {config.get('architectures')}.\n"
                "  Take one of transformers' own, such as openai/clip-vit-large-patch14."
            )
        if not any((beside / each).is_file() for each in (_PROCESSOR, "processor_config.json")):
            raise UnsupportedError(
                f"{beside} has no {_PROCESSOR}, so nothing says how its pictures are prepared.\n"
                "  Name the model that has it: processor: openai/clip-vit-large-patch14."
            )
        return cls(folder, beside)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every file of both folders."""
        folders = {"tokenizer": self.folder, "tokenizer_2": self.processor}
        found = Checkpoint({"model_index": {}, **{each: {} for each in folders}}, {}, {}, folders)
        return " ".join(found.digest(each) for each in folders)

    def pictures(self, images: np.ndarray) -> np.ndarray:
        """Directions of pictures, uint8 (N, height, width, 3): float64 (N, width), each of length 1."""
        return self._directions("get_image_features", [Image.fromarray(each) for each in images], lambda some: {"images": some})

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Directions of texts, in the same space; what is longer than the encoder reads is cut."""
        cut = {"padding": "max_length", "truncation": True}
        return self._directions("get_text_features", list(texts), lambda some: {"text": some, **cut})

    def _directions(self, method: str, inputs: Sequence[Any], asked: Callable[[Sequence[Any]], dict[str, Any]]) -> np.ndarray:
        import torch  # noqa: PLC0415 - a sweep's file is read without it

        network, prepare, device = self.opened
        found = []
        for first in range(0, len(inputs), _TOGETHER):
            given = prepare(**asked(inputs[first : first + _TOGETHER]), return_tensors="pt").to(device)
            with torch.no_grad():
                found.append(getattr(network, method)(**given).pooler_output.double().cpu().numpy())
        rows = np.concatenate(found)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    @cached_property
    def opened(self) -> tuple[Any, Any, str]:
        """The network, what prepares its inputs, and the device that it is on."""
        from transformers import AutoProcessor  # noqa: PLC0415 - as above

        network, device = pretrained.opened("AutoModel", self.folder)
        return network, AutoProcessor.from_pretrained(self.processor, local_files_only=True), device
