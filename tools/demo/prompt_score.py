"""Whether each of the demo's pictures shows what its prompt states, as a score that a sweep names by this file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from engines.strict import Frozen

# A sweep reads this file by its path, wherever it was started.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.demo.check_scene import matches

__all__ = ["PromptScore"]


class PromptScore(Frozen):
    """1 for a picture that shows all that its prompt states and nothing else, 0 for every other."""

    label: ClassVar[str] = "prompts right"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[bool] = False

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """A number a picture; raise ValueError for a prompt that is no caption of a scene."""
        return [float(matches(image, prompt)) for image, prompt in zip(images, prompts, strict=True)]
