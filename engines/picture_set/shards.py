"""A picture set on disk: what it is of, its pictures by number, and which shards of them are whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from engines.disk import require_folder, writing
from engines.errors import BundleError, UnsupportedError
from engines.strict import Frozen

_ABOUT, _LIMIT = "set.json", 2**20


class SetAbout(Frozen):
    """What a picture set is of; another one in the same folder is refused.

    Attributes:
        model: digest of what in the bundle its pictures depend on.
        backend: whose engines; None for the bundle's first.
        prompts: SHA-256 of all, in their order.
        count: how many prompts.
        shard: pictures of a shard.
        seed: of the first picture; the next adds 1.
        wishes: other arguments of `Pipeline.generate`.

    """

    model: str
    backend: str | None
    prompts: str
    count: int
    shard: int
    seed: int
    wishes: dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """Prompts that are drawn together: its number, that of its first picture, the prompts, and the first one's seed."""

    number: int
    first: int
    prompts: tuple[str, ...]
    seed: int


def digest(prompts: Sequence[str]) -> str:
    """SHA-256 of prompts in their order."""
    return hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()


class PictureSet:
    """A folder: `set.json`, `pictures/000000.png` …, and `shards/0000` for each that is whole.

    Attributes:
        about: what the set is of.
        shards: all of them.

    Raises:
        UnsupportedError: the folder holds another set.
        MachineError: it cannot be written to.

    """

    def __init__(self, folder: Path, about: SetAbout, prompts: Sequence[str]) -> None:
        self.about, self._folder = about, folder
        self.pictures, self._whole = folder / "pictures", folder / "shards"
        starts = range(0, len(prompts), about.shard)
        self.shards = tuple(
            Shard(number, first, tuple(prompts[first : first + about.shard]), about.seed + first)
            for number, first in enumerate(starts)
        )
        for each in (folder, self.pictures, self._whole):
            require_folder(each)
        self._claim()

    def left(self) -> list[Shard]:
        """Shards that are not whole."""
        return [shard for shard in self.shards if not self._mark(shard).is_file()]

    def keep(self, shard: Shard, pictures: Sequence[bytes]) -> None:
        """Write a shard's pictures (PNG), and then that it is whole.

        Raises:
            MachineError: it cannot be written; the shard is drawn again next time.

        """
        with writing(self._folder, f"writing {self._folder}"):
            for number, picture in enumerate(pictures, start=shard.first):
                _replace(self.pictures / f"{number:06}.png", picture)
            _replace(self._mark(shard), b"")

    def _mark(self, shard: Shard) -> Path:
        return self._whole / f"{shard.number:04}"

    def _claim(self) -> None:
        file = self._folder / _ABOUT
        if not file.exists():
            with writing(self._folder, f"writing {file}"):
                _replace(file, (self.about.model_dump_json(indent=1) + "\n").encode())
            return
        try:
            found = SetAbout.read(file, _LIMIT)
        except BundleError as error:
            raise UnsupportedError(f"{self._folder} holds something else ({error}). Name another folder.") from error
        if others := [name for name in SetAbout.model_fields if getattr(found, name) != getattr(self.about, name)]:
            raise UnsupportedError(
                f"{self._folder} holds pictures of another set: {' and '.join(others)} differ.\n"
                "  Name another folder, or ask for the same as before."
            )


def _replace(file: Path, content: bytes) -> None:
    partial = file.with_name(f".{file.name}.{uuid4().hex[:8]}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
