"""Arguments of a pipeline's call that are pictures of one channel, in any unit, and tensors (B, height, width) to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.origins import marked, origins

#: What pipelines call them.
MAPS = ("depth_map",)


def named(pipeline: Any) -> list[str]:  # noqa: ANN401 - a pipeline of diffusers
    """Those of a pipeline's call."""
    return [name for name in dry_run.arguments(pipeline) if name in MAPS]


def handed(picture: Any) -> Tensor:  # noqa: ANN401 - (B, channels, height, width), or pictures of PIL
    """A picture as such an argument is given: (B, height, width)."""
    if isinstance(picture, Tensor):
        return marked(picture[:, 0], *origins(picture))
    return torch.stack([torch.from_numpy(np.asarray(each.convert("L"), np.float32) / 255) for each in picture])
