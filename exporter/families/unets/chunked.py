"""Prompts in chunks and with weights, encoded by the source's own text encoders: what a recording of them is held to.

diffusers has neither. The rules are those that A1111 (`sd_hijack_clip.py`, `sd_emphasis.py`) and compel
(`embeddings_provider.py`) publish, one chunk after the other, in another way than the graph computes them.
"""

from __future__ import annotations

import itertools
import math
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
    skip = None if usual else family.recipe.prompts.clip_skip
    state, pooled = _states(family, encoder, ids, weights, empty, skip)
    if family.recipe.prompts.weights == "compel":
        total = 1.0
        for group in _downweighted(weights, empty.shape[1]):
            mask = torch.ones_like(ids)
            mask[group] = 0
            # As compel's DownweightMode.MASK; a weight of 0 would have no end.
            share = math.tan((1 - max(float(weights[group[0]]), 1e-5)) * math.pi / 2)
            state = state + share * _states(family, encoder, ids, weights, empty, skip, mask)[0]
            total += share
        state = state / total
    return state, *([] if pooled is None else [pooled])


def _downweighted(weights: Tensor, size: int) -> list[list[int]]:
    """Places of each group of words that count less than 1: neighbours of one weight, past the ends of chunks too."""
    places = [number for number in range(len(weights)) if 0 < number % size < size - 1]
    groups = itertools.groupby(places, lambda number: float(weights[number]))
    return [list(group) for weight, group in groups if weight < 1]


def _states(
    family: ClipFamily,
    encoder: Any,  # noqa: ANN401
    ids: Tensor,
    weights: Tensor,
    empty: Tensor,
    skip: int | None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """States (length, channels) of one text of which only what the `mask` has is seen, and the pooled one of its first chunk."""
    syntax, size = family.recipe.prompts.weights, empty.shape[1]
    states, pooled = [], []
    nothing = _layer(family, encoder, empty, skip)[0] if syntax == "compel" else None
    for start in range(0, len(ids), size):
        seen = {} if mask is None else {"attention_mask": mask[None, start : start + size]}
        state, output = _layer(family, encoder, ids[None, start : start + size], skip, **seen)
        own = weights[start : start + size, None]
        if nothing is not None:
            state = nothing + (state - nothing) * own
        elif syntax:
            mean = state.mean()
            state = state * own
            state = state * (mean / state.mean())
        states.append(state[0])
        pooled.append(getattr(output, "text_embeds", None))
    return torch.cat(states), None if pooled[0] is None else pooled[0][0]


def _layer(family: ClipFamily, encoder: Any, ids: Tensor, skip: int | None, **seen: Tensor) -> tuple[Tensor, Any]:  # noqa: ANN401
    """Hidden states (1, length, channels) of the layer that the family takes, and all outputs."""
    output = encoder(ids, output_hidden_states=True, **seen)
    if family.penultimate:
        return output.hidden_states[-2 - (skip or 0)], output
    if skip is None:
        return output.last_hidden_state, output
    return getattr(encoder, "text_model", encoder).final_layer_norm(output.hidden_states[-1 - skip]), output
