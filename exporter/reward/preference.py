"""ImageReward as a reward: one network that reads the prompt while it looks at the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.manifest import Tokenizer
from engines.reward import IDS, MASK
from exporter.models.blip_reward import LENGTH
from exporter.models.tokenizer_text import padded

if TYPE_CHECKING:
    from torch import nn

    from engines.inputs import Input
    from exporter.models.blip_reward import BlipReward


@dataclass(frozen=True)
class PreferenceReward:
    """How much people like a picture for a prompt: near N(0, 1) over many pictures."""

    judge: BlipReward

    @property
    def limit(self) -> float:
        """How far an engine's numbers may be from the source's."""
        return 0.01

    @property
    def unit(self) -> str:
        """Of its numbers, in words."""
        return "of a reward whose standard deviation is near 1"

    @property
    def digest(self) -> str:
        """Of the weights, their config and the tokenizer."""
        return self.judge.digest

    @property
    def place(self) -> Path:
        """The file of the weights."""
        return self.judge.weights

    @property
    def device(self) -> str:
        """Where the network is."""
        return self.judge.opened[1]

    @property
    def image(self) -> Input:
        """How a picture is prepared."""
        return self.judge.image

    def tokenizer(self) -> tuple[Tokenizer, str]:
        """What reads the prompt, and the text of its file."""
        entry = Tokenizer(file="tokenizer.json", length=LENGTH, feeds=IDS, mask=MASK)
        return entry, padded(self.judge.tokenizer, LENGTH)

    def network(self) -> nn.Module:
        """Prepared pictures, ids and mask → a number each."""
        return self.judge.opened[0]

    def scores(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """How much people like each picture."""
        return self.judge.scores(images, texts)
