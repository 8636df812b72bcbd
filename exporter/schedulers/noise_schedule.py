"""Scheduler → noise process: what a sampler that chooses its own steps must know of the model."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, get_args

import numpy as np

from engines.errors import UnsupportedError
from engines.noise_process import Prediction, Process, ProcessProvenance
from exporter.schedulers.compile_sampler import configure

#: Log alpha-bar below which there is no signal left: schedules of zero terminal signal end there, and sampling starts before.
_NO_SIGNAL = -50.0


def compile_process(name: str, config: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> Process:
    """Read a variance-preserving scheduler's noise schedule, and what its model predicts.

    Args:
        name: the scheduler's class in diffusers.
        config: changes to `own`.
        own: the model's `scheduler_config.json`.

    Returns:
        The process, with a value for every training time at which there is signal.

    Raises:
        RecipeError: no such scheduler, or an option that it lacks.
        UnsupportedError: the scheduler is not variance-preserving, or its model answers something else or at other times.

    """
    configured = configure(name, config, 1, 1024, 1024, own=own)  # neither steps nor size matter here
    scheduler = configured.make()
    found, settings = getattr(scheduler, "alphas_cumprod", None), scheduler.config
    prediction = settings.get("prediction_type", "epsilon")
    if found is None or settings.get("use_flow_sigmas"):
        raise UnsupportedError(f"{name} is not variance-preserving: it has no alphas_cumprod.")
    if prediction not in get_args(Prediction) or settings.get("timestep_type", "discrete") != "discrete":
        raise UnsupportedError(f"a model of prediction_type {prediction!r}, or of continuous times, is not solved at run time.")
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(found, np.float64))
    if not (np.diff(logs) < 0).all() or not logs[0] < 0:
        raise UnsupportedError(f"{name} adds no noise at some of its times, so nothing is solved at run time: look at its betas.")
    return Process(
        provenance=ProcessProvenance(
            scheduler=name, config=configured.provenance.config, library=f"diffusers {version('diffusers')}"
        ),
        prediction=prediction,
        log_alpha_bar=tuple(float(value) for value in logs if value >= _NO_SIGNAL),
    )
