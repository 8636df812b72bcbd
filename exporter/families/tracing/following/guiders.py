"""Guidance that is a component of a pipeline, a guider: its scale is the graph's input, as elsewhere an argument of the call."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.guiders.guider_utils import BaseGuidance
from torch import Tensor

from engines.errors import UnsupportedError
from exporter.families.tracing.following.open_scale import OpenScale
from exporter.families.tracing.following.standins import stand_in

#: The argument of a pipeline's call that guides, and the attribute of a guider that does.
_SCALE = "guidance_scale"


def of(pipeline: Any) -> dict[str, Any]:  # noqa: ANN401 - a pipeline of diffusers
    """Those of a pipeline by name."""
    return {name: each for name, each in pipeline.components.items() if isinstance(each, BaseGuidance)}


def steered(pipeline: Any, scale: Any) -> dict[str, Any]:  # noqa: ANN401 - a number, or what stands for one
    """In the place of each guider of a pipeline the same one with that scale."""
    return {name: stand_in(each, **{_SCALE: scale}) for name, each in of(pipeline).items()}


@contextmanager
def close() -> Iterator[None]:
    """Within it a scale that is an input says whether it is close to a number as it answers other comparisons."""
    own = math.isclose

    def isclose(first: Any, second: Any, **options: float) -> bool:  # noqa: ANN401 - numbers
        return first == second if isinstance(first, OpenScale) else own(first, second, **options)

    math.isclose = isclose
    try:
        yield
    finally:
        math.isclose = own


def refuse(pipeline: Any, steps: int) -> None:  # noqa: ANN401 - a pipeline of diffusers
    """Raise UnsupportedError for a guider that guides one step in another way than the next one, of so many."""
    for name, own in of(pipeline).items():
        first, *others = _answers(own, steps)
        if first is None or any(each is None or not torch.allclose(each, first, rtol=1e-4, atol=1e-5) for each in others):
            raise UnsupportedError(
                f"{name}: {type(own).__name__} guides a step by its number, or by what it saw in steps before, and a bundle's "
                f"step knows neither.\n  Give {type(pipeline).__name__} a guider that does not, such as ClassifierFreeGuidance, "
                "before save_pretrained; or write sampler.guidance.mode: none, for no guidance."
            )


def _answers(own: Any, steps: int) -> Iterator[Tensor | None]:  # noqa: ANN401 - a guider
    """What it makes of the same predictions at one step after the other; None where it wants those of more than two branches."""
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(2, 1, 4, 8, 8, generator=generator).unbind()
    guider = own.new()
    for step in range(steps):
        guider.set_state(step=step, num_inference_steps=steps, timestep=torch.tensor(1000.0 * (1 - step / steps)))
        batches = guider.prepare_inputs({"states": predicted})
        if len(batches) > len(predicted):
            yield None
            return
        for batch in batches:
            batch.noise_pred = batch.states
        yield guider(batches)[0]
