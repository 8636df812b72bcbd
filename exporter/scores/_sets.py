"""What scores of whole sets of pictures share: the pictures that they are held against, and the network that sees both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self
from uuid import uuid4

import numpy as np
from PIL import Image
from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from engines.disk import require_folder, writing
from engines.errors import UnsupportedError
from engines.strict import Frozen
from exporter.models.feature_network import FeatureNetwork
from exporter.scores import kept_of, root_of

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


class AgainstPictures(Frozen):
    """Options of a score that holds pictures, as a whole, against others: a folder's, else the base's or the source's."""

    label: ClassVar[str]

    reference: str | None = Field(
        default=None, min_length=1, description="folder of pictures to compare with; the base's or the source's by default"
    )
    _files: tuple[Path, ...] = PrivateAttr(default=())
    _kept: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _listed(self, about: ValidationInfo) -> Self:
        self._kept = kept_of(about)
        if self.reference is not None:
            folder = root_of(about) / self.reference
            self._files = tuple(file for file in sorted(folder.glob("*")) if file.suffix.lower() in _PICTURES)
            if len(self._files) < 2:
                raise UnsupportedError(f"reference: {folder} has {len(self._files)} pictures; it takes two at least.")
        return self

    @property
    def compares(self) -> bool:
        """Whether it needs the reference's pictures."""
        return self.reference is None

    def digest_of(self, network: str) -> str:
        """SHA-256 of a network's digest, and of the folder's pictures."""
        total = hashlib.sha256(network.encode())
        for file in self._files:
            total.update(hashlib.sha256(file.read_bytes()).digest())
        return total.hexdigest()

    def rows(
        self, see: Callable[[np.ndarray], np.ndarray], network: str, images: np.ndarray, reference: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Both sets as a network, of that digest, sees them. The folder's pictures may differ in size.

        What it sees in the reference is kept by content where there is a place for it.

        Raises:
            UnsupportedError: there is one picture only.

        """
        if len(images) < 2:
            raise UnsupportedError(f"{self.label} is told of many pictures, and there is one. Give more prompts.")
        own = see(images)
        if reference is not None:
            content = hashlib.sha256(f"{network} {reference.shape}".encode() + np.ascontiguousarray(reference).tobytes())
            return own, self._once(content.hexdigest(), lambda: see(reference))

        def others() -> np.ndarray:
            return np.concatenate([see(np.array(Image.open(file).convert("RGB"))[None]) for file in self._files])

        return own, self._once(self.digest_of(network) if self._kept else "", others)

    def _once(self, name: str, look: Callable[[], np.ndarray]) -> np.ndarray:
        """What a look gives, of this process or of one before."""
        if self._kept is None:
            return look()
        file = self._kept / f"{name}.npy"
        if file.is_file():
            return np.load(file)
        require_folder(self._kept)
        found, partial = look(), file.with_name(f"{uuid4().hex}.partial")
        with writing(self._kept, f"writing {file}"):
            try:
                with partial.open("wb") as opened:
                    np.save(opened, found)
                partial.replace(file)
            finally:
                partial.unlink(missing_ok=True)
        return found


class JudgedByNetwork(Frozen):
    """Options of a score that a network of pictures gives, which a user names.

    Attributes:
        classifies: whether its classes are asked for, not its features.

    """

    classifies: ClassVar[bool] = False

    model: str = Field(min_length=1)
    revision: str | None = Field(default=None, description="of the model, on the hub")
    _network: FeatureNetwork = PrivateAttr()

    @model_validator(mode="after")
    def _found(self, about: ValidationInfo) -> Self:
        self._network = FeatureNetwork.find(self.model, self.revision, root_of(about), classifies=self.classifies)
        return self


class FeatureSets(JudgedByNetwork, AgainstPictures):
    """A score of two sets of pictures by a network's features."""

    model: str = Field(
        min_length=1,
        description="what sees the pictures: StyleGAN2-ADA's inception-2015-12-05.pt or vgg16.pt, any TorchScript file from "
        "uint8 pictures (N, 3, height, width) to rows, or a folder or hub id, such as facebook/dinov2-large",
    )

    @cached_property
    def digest(self) -> str:
        """Of the weights, and of the pictures that are compared with."""
        return self.digest_of(self._network.digest)

    def notes(self, count: int) -> list[str]:
        """How it is told of so many pictures: reference set, network, and how pictures come to the network's size."""
        others = f"the {len(self._files)} of {self.reference}" if self._files else "the reference's of the same prompts and noise"
        return [f"{self.label}: {count} pictures against {others}, seen by {self.model}, {self._network.preparation}."]

    def seen(self, images: np.ndarray, reference: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Features of both sets: (N, width) and (M, width).

        Raises:
            UnsupportedError: there is one picture only, or the network has no features.

        """
        return self.rows(self._network.features, self._network.digest, images, reference)
