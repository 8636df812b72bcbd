"""Rewards: what says how well a picture fits its prompt, of three kinds that are found by the same words, and their folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engines.errors import RecipeError, UnsupportedError
from exporter.models import blip_reward, locate
from exporter.models.blip_reward import BlipReward
from exporter.models.dual_encoder import DualEncoder
from exporter.reward import own
from exporter.reward.cosine import CosineReward
from exporter.reward.preference import PreferenceReward

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import nn

    from engines.inputs import Input
    from engines.manifest import Tokenizer
    from engines.reward import RewardManifest

#: How many folders above a reward's its networks are looked for in.
_ABOVE = 3


class RewardSource(Protocol):
    """The networks that a reward is made of, in torch."""

    @property
    def limit(self) -> float:
        """How far an engine's numbers may be from the source's."""
        ...

    @property
    def unit(self) -> str:
        """Of its numbers, in words."""
        ...

    @property
    def digest(self) -> str:
        """Of all files that it judges by."""
        ...

    @property
    def place(self) -> Path:
        """Where the weights lie."""
        ...

    @property
    def device(self) -> str:
        """Where the network is."""
        ...

    @property
    def image(self) -> Input:
        """How a picture is prepared."""
        ...

    def tokenizer(self) -> tuple[Tokenizer, str]:
        """What reads the prompt, as the run time has it, and the text of its file."""
        ...

    def network(self) -> nn.Module:
        """Prepared pictures (batch, height, width, 3), ids (batch, length), and a mask where the tokenizer has one → (batch,)."""
        ...

    def scores(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Numbers of pictures, uint8 (N, height, width, 3), each with its text, as the source's own code prepares both: (N,)."""
        ...


def find(model: str, processor: str | None, revision: str | None, root: Path) -> RewardSource:
    """Find what a reward is made of: a Python file, an ImageReward, known by its file or its config, or a pair of encoders.

    Raises:
        RecipeError: there is nothing under a name.
        UnsupportedError: what is there is neither, or the hub is not reached.

    """
    if model.endswith(own.SUFFIX):
        if processor or revision:
            raise RecipeError(f"{model}: a reward of one's own takes no processor and no revision")
        return own.OwnReward.find(model, root)
    if blip_reward.is_one(model, revision, root):
        return PreferenceReward(BlipReward.find(model, processor, revision, root))
    return CosineReward(DualEncoder.find(model, processor, revision, root))


def source_of(about: RewardManifest, folder: Path) -> RewardSource:
    """What a reward's folder was made of, found by the name that it keeps of it.

    A path is looked for in the working directory and in the folders above the reward's.

    Raises:
        RecipeError: there is nothing under that name.
        UnsupportedError: others are.

    """
    named = about.source
    near = (Path.cwd(), *folder.resolve().parents[:_ABOVE])
    held = (place for place in near if _is_there(place / named["source"]))
    found = find(named["source"], named.get("processor"), named.get("revision"), next(held, Path.cwd()))
    if found.digest != named["digest"]:
        raise UnsupportedError(
            f"{found.place} holds other networks than those that {folder} was made of. Make the reward again, or bring them back."
        )
    return found


def _is_there(place: Path) -> bool:
    return locate.holds_model(place) or blip_reward.holds(place) or (place.suffix == own.SUFFIX and place.is_file())
