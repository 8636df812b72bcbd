"""A reward of a user's own: a Python file with one public name, a class that says how a picture and a prompt become a number."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from engines.errors import UnsupportedError
from engines.images import preprocess
from engines.inputs import Input
from engines.manifest import Tokenizer
from engines.reward import IMAGE
from engines.tokenizer import TextTokenizer
from exporter import scores

if TYPE_CHECKING:
    from torch import nn

SUFFIX = ".py"
#: What the class must have.
_NEEDED = ("image", "tokenizer", "network")


@dataclass(frozen=True)
class OwnReward:
    """What a file says, made without arguments; its options are its own constants.

    Attributes:
        place: the file.
        made: of its class, which has `image`, how a picture is prepared; `tokenizer()`, what reads the prompt and the text of
            its file; and `network()`, prepared pictures, ids and a mask where the tokenizer feeds one → a number each. It may
            have `limit` and `unit`.

    """

    place: Path
    made: Any

    @classmethod
    def find(cls, name: str, root: Path) -> Self:
        """Open a file that counts from `root`.

        Raises:
            RecipeError: there is none.
            UnsupportedError: it has no such class.

        """
        file = root / name
        kind = scores.from_file(file, "a reward")
        if lacking := [each for each in _NEEDED if not hasattr(kind, each)]:
            raise UnsupportedError(
                f"{file}: its class lacks {', '.join(lacking)}, which a reward has. docs/sampling.md says what they are."
            )
        return cls(file, kind())

    @property
    def limit(self) -> float:
        """How far an engine's numbers may be from the network's."""
        return float(getattr(self.made, "limit", 0.01))

    @property
    def unit(self) -> str:
        """Of its numbers, in words."""
        return str(getattr(self.made, "unit", "of its own numbers"))

    @property
    def device(self) -> str:
        """Where the network is."""
        return "cpu"

    @property
    def digest(self) -> str:
        """Of the file and of the tokenizer; what else the file reads is its own."""
        return hashlib.sha256(self.place.read_bytes() + self.tokenizer()[1].encode()).hexdigest()

    @property
    def image(self) -> Input:
        """How a picture is prepared."""
        return self.made.image

    def tokenizer(self) -> tuple[Tokenizer, str]:
        """What reads the prompt, and the text of its file."""
        return self.made.tokenizer()

    def network(self) -> nn.Module:
        """Prepared pictures, ids and perhaps a mask → a number each."""
        return self._network

    @cached_property
    def _network(self) -> nn.Module:
        return self.made.network().eval()

    def scores(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Numbers of pictures, as the network gives them in torch."""
        import torch  # noqa: PLC0415 - a reward's folder is found without it

        height, width = (int(side) for side in self.image.shape[1:3])
        pixels = [preprocess.fed(IMAGE, self.image, Image.fromarray(each), height, width) for each in images]
        entry, spelled = self.tokenizer()
        with TemporaryDirectory() as folder:
            (Path(folder) / entry.file).write_text(spelled, encoding="utf-8")
            read = TextTokenizer.of(Path(folder) / entry.file, entry).encode(texts)
        given = [np.stack(pixels), read.ids, *([read.mask] if entry.mask else [])]
        with torch.no_grad():
            return self._network(*map(torch.from_numpy, given)).double().numpy()
