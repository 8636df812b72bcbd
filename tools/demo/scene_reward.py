"""How near a picture is to a scene that its prompt states, as a reward with a gradient: what `check_scene` decides, by degrees.

    t2iexport reward tools/demo/scene_reward.py -o rewards/scene

Nothing is learned. What the prompt says is read off its ids; each of its objects is laid where an ideal one of its shape and
colour explains most of the picture, on the side of the other that the prompt says; and the number is how little of the picture
that leaves unexplained. Where things are laid has no gradient; how well they fit there has one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from engines.inputs import Input, Preprocessing
from engines.manifest import Tokenizer
from engines.reward import IDS

# A reward is read by its path, wherever it was started.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.demo.scenes import SIDE

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SceneReward"]

_TOKENIZER = Path(__file__).parents[2] / "recipes" / "demo" / "tokenizer" / "tokenizer.json"
_LENGTH = 32


class SceneReward:
    """100 for a picture that is a scene as its prompt states; what is off takes from it, and has no end."""

    unit: ClassVar[str] = "of 100"
    limit: ClassVar[float] = 0.1

    @property
    def image(self) -> Input:
        """The picture as it is."""
        return Input(kind="image", shape=("batch", SIDE, SIDE, 3), preprocessing=Preprocessing(resize="crop", resample="bicubic"))

    def tokenizer(self) -> tuple[Tokenizer, str]:
        """The demo's own, of whose ids each is a word."""
        return Tokenizer(file="tokenizer.json", length=_LENGTH, feeds=IDS), self._own().to_str()

    def network(self) -> nn.Module:
        """Pictures in [0, 1] (batch, SIDE, SIDE, 3) and ids (batch, 32) → a number each."""
        from tools.demo.scene_network import SceneNetwork  # noqa: PLC0415 - torch

        return SceneNetwork(self._own()).eval()

    @staticmethod
    def _own() -> Any:  # noqa: ANN401 - the library ships no strict types
        import tokenizers  # noqa: PLC0415 - help needs none

        own: Any = tokenizers.Tokenizer.from_file(str(_TOKENIZER))
        own.no_truncation()
        end = own.token_to_id("<|endoftext|>")
        own.enable_padding(length=_LENGTH, pad_id=end, pad_token="<|endoftext|>")  # noqa: S106 - no secret
        return own
