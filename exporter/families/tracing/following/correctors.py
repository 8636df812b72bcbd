"""Schedulers that predict and correct by two methods, while a pipeline is followed that calls both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from engines.errors import UnsupportedError


def refuse_unstepped(real: Any) -> None:  # noqa: ANN401 - a scheduler of diffusers
    """Raise UnsupportedError where a scheduler has no `step`."""
    if not hasattr(real, "step"):
        raise UnsupportedError(
            f"{type(real).__name__} has no step, by which every sampler is compiled, nor the two methods of a predictor and a "
            "corrector.\n  Take a pipeline whose scheduler has one."
        )


def methods(real: Any, time: Tensor, step: Callable[[Any, Any, Any, Mapping[str, Any]], Any]) -> dict[str, Any]:  # noqa: ANN401
    """What a stand-in for such a scheduler has beside a `step`: the two methods, and `time` as its only noise level."""
    if not hasattr(real, "step_correct"):
        return {}

    def correct(_self: Any, output: Any, sample: Any, **options: Any) -> Any:  # noqa: ANN401 - diffusers'
        return step(output, time, sample, {name: value for name, value in options.items() if name != "generator"})

    def predict(_self: Any, output: Any, _time: Any, sample: Any, **options: Any) -> Any:  # noqa: ANN401
        latent = correct(_self, output, sample, **options).prev_sample
        return SimpleNamespace(prev_sample=latent, prev_sample_mean=latent)

    return {"step_correct": correct, "step_pred": predict, "set_sigmas": lambda *_, **__: None, "sigmas": time[None]}
