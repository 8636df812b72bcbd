"""A pair of encoders as a reward: 100 times the cosine of what they make of a picture and of its prompt, as CLIP's score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from engines.errors import UnsupportedError
from engines.inputs import Input, Preprocessing
from engines.manifest import Tokenizer
from engines.reward import IDS
from exporter.models.tokenizer_text import padded

if TYPE_CHECKING:
    from torch import nn

    from exporter.models.dual_encoder import DualEncoder


@dataclass(frozen=True)
class CosineReward:
    """CLIP's score, PickScore's, HPSv2's."""

    encoder: DualEncoder

    @property
    def limit(self) -> float:
        """How far an engine's numbers may be from the source's."""
        return 0.1

    @property
    def unit(self) -> str:
        """Of its numbers, in words."""
        return "hundredths of a cosine"

    @property
    def digest(self) -> str:
        """Of the encoders and of what prepares their inputs."""
        return self.encoder.digest

    @property
    def place(self) -> Path:
        """The encoders' folder."""
        return self.encoder.folder

    @property
    def device(self) -> str:
        """Where the encoders are."""
        return self.encoder.opened[2]

    @property
    def image(self) -> Input:
        """How pictures are prepared, of the image processor's own words.

        Raises:
            UnsupportedError: the run time does not know how.

        """
        processor = self.encoder.opened[1].image_processor
        size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
        cropped = bool(getattr(processor, "do_center_crop", False))
        side = size.get("shortest_edge")
        if cropped and side and crop == {"height": side, "width": side}:
            resize, height, width = "crop", side, side
        elif not cropped and size.keys() == {"height", "width"}:
            resize, height, width = "stretch", size["height"], size["width"]
        else:
            raise UnsupportedError(
                f"{self.encoder.processor} prepares pictures by size {size} and crop {crop if cropped else 'none'}. Those of a "
                "reward are resized to one size, or by the shorter side to a square that is cropped from the middle."
            )
        resample = Image.Resampling(processor.resample).name.lower()
        mean, std = (tuple(float(each) for each in numbers) for numbers in (processor.image_mean, processor.image_std))
        prepared = Preprocessing.model_validate({"resize": resize, "resample": resample, "mean": mean, "std": std})
        return Input(kind="image", shape=("batch", height, width, 3), preprocessing=prepared)

    def tokenizer(self) -> tuple[Tokenizer, str]:
        """What reads the prompt, and the text of its file."""
        network, prepare, _ = self.encoder.opened
        source: Any = prepare.tokenizer
        length = min(int(source.model_max_length), int(network.config.text_config.max_position_embeddings))
        return Tokenizer(file="tokenizer.json", length=length, feeds=IDS), padded(source, length)

    def network(self) -> nn.Module:
        """Prepared pictures and ids → a number each."""
        from torch import Tensor, nn  # noqa: PLC0415 - a reward's folder is found without it

        encoders = self.encoder.opened[0]

        class Cosine(nn.Module):
            """100 times the cosine of the directions of a picture and a text."""

            def __init__(self) -> None:
                super().__init__()
                self.network = encoders

            def forward(self, image: Tensor, ids: Tensor) -> Tensor:
                seen = self.network.get_image_features(pixel_values=image.permute(0, 3, 1, 2)).pooler_output
                read = self.network.get_text_features(input_ids=ids).pooler_output
                return 100 * nn.functional.cosine_similarity(seen, read)

        return Cosine().eval()

    def scores(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """CLIP's score of each picture."""
        return 100 * (self.encoder.pictures(images) * self.encoder.texts(texts)).sum(1)
