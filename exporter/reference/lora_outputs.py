"""What a network gives with LoRAs fused into its weights, an item of a batch at a time, since each has its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from exporter.part import LORA_SCALES
from exporter.reference.part_outputs import measure

if TYPE_CHECKING:
    from engines.lora.factors import Pair
    from exporter.part import Case, Part


def fused(
    whole: Part,
    made: Part,
    cases: Iterable[Case],
    loras: Sequence[Mapping[str, Pair]],
    scales: Callable[[int], Sequence[Sequence[float]]],
) -> list[Case]:
    """The cases with `lora_scales` among their inputs: `source` of the fused network in fp32, `passes` in its own precision.

    Args:
        whole: the network in fp32.
        made: the same in the precision in which it is exported; of fp32 the same object.
        cases: recorded calls.
        loras: layer's name → A and B, of each. They are added in fp32, before anything is rounded.
        scales: of so many items, how strongly they have each LoRA, one list a LoRA.

    """
    weights = {name: whole.network.get_submodule(name).weight.data for pairs in loras for name in pairs}
    try:
        return [
            _fused(whole, made, case, loras, np.array(scales(len(next(iter(case.inputs.values())))), np.float32), weights)
            for case in cases
        ]
    finally:
        _put(whole, weights)
        _put(made, weights)


def _fused(
    whole: Part,
    made: Part,
    case: Case,
    loras: Sequence[Mapping[str, Pair]],
    scales: np.ndarray,
    weights: Mapping[str, torch.Tensor],
) -> Case:
    rows: list[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]] = []
    for item in range(scales.shape[1]):
        one = replace(case, inputs={name: array[item : item + 1] for name, array in case.inputs.items()})
        changed = {name: weight.float() for name, weight in weights.items()}
        for pairs, scale in zip(loras, scales[:, item], strict=True):
            for name, (a, b) in pairs.items():
                change = torch.from_numpy(b) @ torch.from_numpy(a).flatten(1)
                changed[name] = changed[name] + float(scale) * change.reshape(changed[name].shape)
        _put(whole, changed)
        source = measure(whole, [one])[0].passes
        if made is not whole:
            _put(made, changed)
        rows.append((source, source if made is whole else measure(made, [one])[0].passes))
    sides = [{name: np.concatenate([row[side][name] for row in rows]) for name in rows[0][0]} for side in (0, 1)]
    return replace(case, inputs={**case.inputs, LORA_SCALES: scales}, source=sides[0], passes=sides[1])


def _put(part: Part, weights: Mapping[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        own = part.network.get_submodule(name).weight
        own.data = weight.to(own.dtype)
