"""ImageReward: a BLIP that reads a prompt while it looks at a picture, and a head that says how much people like the two.

Xu et al., *ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation* (2023). Its published weights are
read into transformers' own BLIP, so nothing of the package `image-reward` is needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from engines.errors import UnsupportedError
from engines.images import preprocess
from engines.inputs import Input, Preprocessing
from exporter.models import hub, locate, pretrained
from exporter.models.safetensors_header import read_json

if TYPE_CHECKING:
    from torch import nn

#: What says how the text encoder is built, beside the weights; its name is what an ImageReward is known by.
CONFIG = "med_config.json"
#: ids of a prompt; what is longer is cut.
LENGTH = 35
_WEIGHTS = (".safetensors", ".pt")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_BESIDE = {CONFIG, *_TOKENIZER}
#: Whose tokenizer reads the prompts, where none lies with the weights.
_READER = "google-bert/bert-base-uncased"
#: CLIP's, of colours in [0, 1].
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
#: Pictures that are looked at by one call.
_TOGETHER = 16


def holds(place: Path) -> bool:
    """Whether a path is an ImageReward: a file of its weights, or a folder with its config or its published file."""
    if os.path.isfile(place):  # noqa: PTH113 - answers where this user may not look, or a name is no file's; pathlib's raises
        return place.suffix in _WEIGHTS
    return any(os.path.isfile(place / name) for name in (CONFIG, "ImageReward.pt"))  # noqa: PTH113 - as above


def is_one(name: str, revision: str | None, root: Path) -> bool:
    """Whether a name means an ImageReward: a path of one, or a repository of the hub with its config.

    Raises:
        UnsupportedError: the hub is not reached, or has no such repository.

    """
    there = locate.first(locate.candidates(name, root), os.path.exists)
    if there is not None or not hub.ID.fullmatch(name) or name.endswith(_WEIGHTS):
        return locate.first(locate.candidates(name, root), holds) is not None
    place = hub.fetch_chosen(name, revision, lambda files: [CONFIG] if CONFIG in files else []).place
    return (place / CONFIG).is_file()


@dataclass(frozen=True)
class BlipReward:
    """What likes pictures. Imports torch when it is first used.

    Attributes:
        weights: the file, ImageReward.pt or .safetensors with tensors of the same names.
        processor: folder of the tokenizer.

    """

    weights: Path
    processor: Path

    @classmethod
    def find(cls, name: str, processor: str | None, revision: str | None, root: Path) -> Self:
        """Look beside `root`, in the working directory, and on the hub; `processor` is None for BERT's tokenizer.

        Raises:
            RecipeError: there is nothing under a name.
            UnsupportedError: what is there has no weights, or no tokenizer, or several; or the hub is not reached.

        """
        place = locate.first(locate.candidates(name, root), holds)
        if place is None and (found := locate.find(name, root, "model")) is not None:
            raise UnsupportedError(f"{found} is no ImageReward: there is no {CONFIG} and no ImageReward.pt.")
        if place is None:
            place = hub.fetch_chosen(name, revision, lambda files: [_of(files, name), *(set(files) & _BESIDE)]).place
        weights = place if place.is_file() else place / _of([each.name for each in place.iterdir()], str(place))
        return cls(weights, _reader(weights.parent, processor, root))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the weights, their config, and the tokenizer's files."""
        total = hashlib.sha256()
        for folder, names in ((self.weights.parent, (self.weights.name, CONFIG)), (self.processor, _TOKENIZER)):
            for name in names:
                if (folder / name).is_file():
                    with (folder / name).open("rb") as file:
                        total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
        return total.hexdigest()

    @cached_property
    def opened(self) -> tuple[nn.Module, str]:
        """The network, prepared pictures (N, height, width, 3), ids and mask (N, LENGTH) → (N,); and the device that it is on.

        Raises:
            UnsupportedError: the weights are not an ImageReward's.

        """
        import torch  # noqa: PLC0415 - a sweep's file is read without it

        from exporter.models import blip_network  # noqa: PLC0415 - as above

        pretrained.quiet()
        config = read_json(self.weights.parent / CONFIG) if (self.weights.parent / CONFIG).is_file() else {}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return blip_network.load(self.weights, config).eval().to(device), device

    @cached_property
    def tokenizer(self) -> Any:  # noqa: ANN401 - transformers'
        """BERT's, with the two tokens that BLIP adds."""
        from transformers import BertTokenizer  # noqa: PLC0415 - as above

        pretrained.quiet()
        found: Any = BertTokenizer.from_pretrained(self.processor, local_files_only=True)
        found.add_special_tokens({"bos_token": "[DEC]"})
        found.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
        return found

    @cached_property
    def image(self) -> Input:
        """How a picture is prepared: its shorter side to the network's, the middle of the longer, and CLIP's colours."""
        side = int(getattr(self.opened[0], "side"))  # noqa: B009 - torch's types do not know it
        prepared = Preprocessing(resize="crop", resample="bicubic", mean=_MEAN, std=_STD)
        return Input(kind="image", shape=("batch", side, side, 3), preprocessing=prepared)

    def scores(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """How much people like pictures, uint8 (N, height, width, 3), for their texts: float64 (N,), near N(0, 1) over many."""
        import torch  # noqa: PLC0415 - as above

        network, device = self.opened
        _, side, _, _ = self.image.shape
        found = []
        for first in range(0, len(images), _TOGETHER):
            some = [Image.fromarray(each) for each in images[first : first + _TOGETHER]]
            pixels = np.stack([preprocess.fed("image", self.image, each, int(side), int(side)) for each in some])
            read = self.tokenizer(
                list(texts[first : first + _TOGETHER]),
                padding="max_length",
                truncation=True,
                max_length=LENGTH,
                return_tensors="pt",
            )
            with torch.no_grad():
                given = (torch.from_numpy(pixels), read.input_ids, read.attention_mask)
                found.append(network(*(each.to(device) for each in given)).double().cpu().numpy())
        return np.concatenate(found)


def _of(files: Sequence[str], where: str) -> str:
    """The file of the weights, of a folder's names."""
    for suffix in _WEIGHTS:  # safetensors first
        if found := [name for name in files if name.endswith(suffix) and "/" not in name]:
            if len(found) > 1 and "ImageReward.pt" not in found:
                raise UnsupportedError(f"{where} has several files of weights: {', '.join(sorted(found))}. Name one.")
            return "ImageReward.pt" if "ImageReward.pt" in found else found[0]
    raise UnsupportedError(f"{where} has no weights of an ImageReward. Take zai-org/ImageReward, or name its ImageReward.pt.")


def _reader(beside: Path, processor: str | None, root: Path) -> Path:
    """Folder of the tokenizer."""
    if processor is None and any((beside / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        return beside
    found, _ = locate.network(processor or _READER, None, root, "processor", "processor", _TOKENIZER, weights=False)
    if not any((found / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise UnsupportedError(f"{found} has no tokenizer. Name the model that has it: processor: {_READER}.")
    return found
