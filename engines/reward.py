"""Rewards: networks that say how well a picture fits its prompt, and the best of several pictures by one. No torch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, ValidationError, model_validator

from engines import plugins, sessions
from engines.bundle import measure
from engines.errors import BundleError, MissingDependency, UnsupportedError
from engines.images import preprocess
from engines.inputs import Input
from engines.manifest import EngineFiles, File, RelativePath, Tokenizer
from engines.sessions import Network
from engines.signature import Name, Signature
from engines.strict import Frozen, describe
from engines.tokenizer import TextTokenizer

MANIFEST = "reward.json"
#: Ports: the picture and the prompt's ids go in, with their mask where the network wants it; a number a picture comes out.
IMAGE, IDS, MASK, REWARD = "image", "prompt_ids", "prompt_mask", "reward"
#: Bytes of a manifest.
LIMIT = 2**20


class RewardManifest(Frozen):
    """What a reward's folder says of itself in `reward.json`.

    Attributes:
        name: what pictures say that chose them.
        source: where its weights are from, as they were named, and their digest.
        image: how a picture is prepared for it.
        tokenizer: of the prompt.
        signature: of its network.
        engines: backend → its options, and what it built; the first whose library is here is taken.
        off: how far, at most, its numbers were from the source's when it was made.
        files: all of them.

    """

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    source: dict[str, str]
    image: Input
    tokenizer: Tokenizer
    signature: Signature
    engines: dict[Name, EngineFiles] = Field(min_length=1)
    off: float = Field(ge=0)
    files: dict[RelativePath, File]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """What a folder says; raise BundleError where it is no reward's, or is damaged."""
        if not (folder / MANIFEST).is_file():
            raise BundleError(f"{folder} is no reward's folder: it has no {MANIFEST}. Make one: t2iexport reward MODEL -o FOLDER")
        about = cls.read(folder / MANIFEST, LIMIT)
        for name, listed in about.files.items():
            if measure(folder / name) != listed:
                raise BundleError(f"{folder / name} is damaged: it is not as {MANIFEST} lists it. Make the reward again.")
        return about

    @model_validator(mode="after")
    def _whole(self) -> Self:
        named = {self.tokenizer.file, *(file for each in self.engines.values() for file in each.files)}
        if missing := named - set(self.files):
            raise ValueError(f"not in files: {sorted(missing)}")
        ports = [[port.name for port in side] for side in (self.signature.inputs, self.signature.outputs)]
        read = [name for name in (self.tokenizer.feeds, self.tokenizer.mask) if name]
        if read not in ([IDS], [IDS, MASK]) or ports != [[IMAGE, *read], [REWARD]]:
            raise ValueError(f"a reward takes {IMAGE} and {IDS}, with {MASK} where its tokenizer feeds one, and gives {REWARD}")
        if self.signature.inputs[0] != self.image.port(IMAGE):
            raise ValueError(f"the port {IMAGE} is not as the picture is prepared")
        if not self.image.pictured or not all(isinstance(side, int) for side in self.image.shape[1:3]):
            raise ValueError("a reward's picture must have one size")
        return self


class Reward:
    """A reward at work.

    Attributes:
        about: what its folder says.
        engine: backend and version.

    """

    def __init__(self, folder: Path, about: RewardManifest, network: Network, engine: str) -> None:
        self.about, self.engine, self._network = about, engine, network
        self._tokenizer = TextTokenizer.of(folder / about.tokenizer.file, about.tokenizer)

    @classmethod
    @contextmanager
    def open(cls, path: Path | str, backend: str | None = None) -> Generator[Self]:
        """Open a reward's folder, on one of its backends or the first whose library is here.

        Raises:
            BundleError: the folder is damaged, or no reward's.
            UnsupportedError: it has no such engine.
            MissingDependency: no library of its engines is installed.

        """
        folder = Path(path)
        about = RewardManifest.of(folder)
        if backend and backend not in about.engines:
            raise UnsupportedError(f"{path} has no engine of {backend}; it has {', '.join(about.engines)}.")
        lacking: MissingDependency | None = None
        for name in [backend] if backend else list(about.engines):
            built = about.engines[name]
            try:
                chosen = plugins.load("backends", name)(**built.options)
                opened = chosen.open([folder / file for file in built.files], about.signature)
            except ValidationError as error:
                raise BundleError(f"{folder / MANIFEST}: options that {name} does not take:\n{describe(error)}") from error
            except MissingDependency as error:
                lacking = lacking or error
                continue
            with opened as network:
                yield cls(folder, about, network, f"{name} {chosen.version}")
            return
        if lacking:
            raise lacking

    def scores(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """A number for each picture and its own prompt, more is better: float32 (pictures,)."""
        height, width = (int(side) for side in self.about.image.shape[1:3])
        pixels = np.stack([preprocess.fed(IMAGE, self.about.image, picture, height, width) for picture in pictures])
        read = self._tokenizer.encode(prompts)
        inputs = {IMAGE: pixels, IDS: read.ids} | ({MASK: read.mask} if self.about.tokenizer.mask else {})
        return sessions.run([self._network], self.about.signature, inputs)[REWARD]

    def best(self, pictures: Sequence[Image.Image], prompt: str) -> Image.Image:
        """The picture that fits the prompt best; its `info` says so, with its number and that of all in the mean."""
        numbers = self.scores(pictures, [prompt] * len(pictures))
        chosen = pictures[int(numbers.argmax())]
        chosen.info |= {
            "best_of": str(len(pictures)),
            "reward": self.about.name,
            "reward_score": f"{numbers.max():.6g}",
            "reward_mean": f"{numbers.mean():.6g}",
        }
        return chosen
