"""Prompts in chunks and with weights, encoded by the source's own text encoders: what a recording of them is held to.

diffusers has neither. The rules are those that A1111 (`sd_hijack_clip.py`, `sd_emphasis.py`) and compel
(`embeddings_provider.py`) publish, one chunk after the other, in another way than the graph computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from exporter.families.unets.tokens import ClipFamily


def encode(family: ClipFamily, pipeline: Any, tokens: Mapping[str, np.ndarray], *, zeros: bool) -> dict[str, np.ndarray]:  # noqa: ANN401
    """Conditioning by port, float32 (batch, branches, …), of ids and weights by port.

    Args:
        family: whose recipe says how.
        pipeline: of diffusers.
        tokens: as `LatentDiffusionReference.tokenize` returns them.
        zeros: the first branch, left empty, is zeros.

    """
    found: dict[str, np.ndarray] = {}
    for tower, name in family.towers.items():
        ids = torch.from_numpy(tokens[f"{name}_ids"])
        given = tokens.get(f"{name}_weights")
        weights = torch.ones(ids.shape) if given is None else torch.from_numpy(given)
        encoder, empty = getattr(pipeline, tower), torch.tensor([family.empty(tower)])
        outputs = [
            [
                _text(family, encoder, ids[item, branch], weights[item, branch], empty, usual=usual)
                for branch, usual in zip(range(ids.shape[1]), (ids.shape[1] == 2, False), strict=False)
            ]
            for item in range(len(ids))
        ]
        for index, port in enumerate(family.signature(tower).outputs):
            found[port.name] = torch.stack([torch.stack([each[index] for each in row]) for row in outputs]).numpy()
            if zeros:
                found[port.name][:, 0] = 0
    return found


def _text(
    family: ClipFamily,
    encoder: Any,  # noqa: ANN401
    ids: Tensor,
    weights: Tensor,
    empty: Tensor,
    *,
    usual: bool,
) -> tuple[Tensor, ...]:
    """States (length, channels) of one text, and the pooled one of its first chunk where there is any; `usual` skips no layer."""
    prompts, size = family.recipe.prompts, empty.shape[1]
    skip = None if usual else prompts.clip_skip
    states, pooled = [], []
    nothing = _layer(family, encoder, empty, skip)[0] if prompts.weights == "compel" else None
    for start in range(0, len(ids), size):
        state, output = _layer(family, encoder, ids[None, start : start + size], skip)
        own = weights[start : start + size, None]
        if nothing is not None:
            state = nothing + (state - nothing) * own
        elif prompts.weights:
            mean = state.mean()
            state = state * own
            state = state * (mean / state.mean())
        states.append(state[0])
        pooled.append(getattr(output, "text_embeds", None))
    return torch.cat(states), *([] if pooled[0] is None else [pooled[0][0]])


def _layer(family: ClipFamily, encoder: Any, ids: Tensor, skip: int | None) -> tuple[Tensor, Any]:  # noqa: ANN401
    """Hidden states (1, length, channels) of the layer that the family takes, and all outputs."""
    output = encoder(ids, output_hidden_states=True)
    if family.penultimate:
        return output.hidden_states[-2 - (skip or 0)], output
    if skip is None:
        return output.last_hidden_state, output
    return getattr(encoder, "text_model", encoder).final_layer_norm(output.hidden_states[-1 - skip]), output
