"""Scheduler → table, proved.

A linear sampler acts on every pixel alike, by sums with constant coefficients. So its coefficients can be read off by running
diffusers' own scheduler once on the identity matrix: pixel j of every latent is the probe of the j-th latent that came to be.
Linearity is not assumed: a second run on random latents must give what the table gives, played by the player that ships.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin, schedulers

from engines.errors import MissingDependency, RecipeError, UnsupportedError
from engines.plugins import did_you_mean
from engines.samplers.table import Draw, Emit, Eval, Provenance, Table
from exporter.loop import Dice, Loop, blame, drive, shift

__all__ = ["Dice", "Loop", "Row", "compile_sampler", "drive", "prove", "survey", "trace"]

#: How far the table may be from the scheduler, as a share of the terms summed: linear ones stay below 2e-5, clipping shows 0.1.
TOLERANCE = 1e-4
#: Sizes of the latents in the proof: a bend that shows only far from, or only near, the origin shows in one of them.
SCALES = (1e-2, 1.0, 30.0)
#: Options that bend a scheduler.
_BENDS = ("clip_sample", "clip_denoised", "thresholding")
_BROWNIAN = (
    "its noise comes from a Brownian tree, whose draws depend on each other. "
    "Take DPMSolverMultistepScheduler with config algorithm_type: sde-dpmsolver++"
)
_REFUSED = {"DPMSolverSDEScheduler": _BROWNIAN, "CosineDPMSolverMultistepScheduler": _BROWNIAN}
#: What the network's output means, and how its noise ends: a scheduler without such an option cannot stand in for one with it.
_MEANING = ("prediction_type", "rescale_betas_zero_snr")
#: Arguments of `scheduler.step` that are the loop's own.
_STEP = ("self", "model_output", "timestep", "sample", "generator", "return_dict")


def trace(make: Callable[[], Any], loop: Loop, provenance: Provenance) -> Table:
    """Read the table off: one run on the identity matrix.

    Args:
        make: returns a fresh scheduler.
        loop: what the pipeline would be asked for.
        provenance: goes into the table.

    Returns:
        The table, not yet proved; coefficients are float32, as short as they can be read back.

    Raises:
        UnsupportedError: a step adds a constant, gives NaN or infinity, or changes the shape.

    """
    ops: list[Draw | Eval | Emit] = []
    shape = (1, 1, 1, 4 * loop.steps + 16)  # two evaluations and two noises a step, and a slow start
    name = provenance.scheduler

    def probe() -> torch.Tensor:
        if len(ops) > shape[-1]:
            raise UnsupportedError(f"{name} uses more than {shape[-1]} latents in {loop.steps} steps. Choose another scheduler.")
        latent = torch.zeros(shape)
        latent[..., len(ops) - 1] = 1.0
        return latent

    def read(latent: torch.Tensor) -> tuple[float, ...]:
        row = latent.reshape(-1).numpy() if tuple(latent.shape) == shape else np.full(1, np.nan)
        if not np.isfinite(row).all():
            raise UnsupportedError(
                f"{name} gives NaN, infinity or another shape at {loop.steps} steps. Choose other steps or another scheduler."
            )
        if row[len(ops) :].any():
            raise UnsupportedError(f"{name} adds a constant to the latent, so it is not linear{_advice(make())}.")
        return tuple(float(str(value)) for value in np.trim_zeros(row[: len(ops)], "b"))

    def draw(wanted: tuple[int, ...]) -> torch.Tensor:
        if wanted != shape:
            raise UnsupportedError(f"{name} draws noise of another shape than the latent's. Choose another scheduler.")
        ops.append(Draw())
        return probe()

    def model(latent: torch.Tensor, time: float) -> torch.Tensor:
        ops.append(Eval(t=time, row=read(latent)))
        return probe()

    final = drive(make(), loop, model, draw, shape)
    return Table(provenance=provenance, ops=(*ops, Emit(row=read(final))))


def prove(table: Table, make: Callable[[], Any], loop: Loop) -> float:
    """Play the table against the scheduler on random latents of another shape than the trace's, at every scale in `SCALES`.

    Compared are every model input and time, the order of draws and evaluations, and the result.

    Returns:
        The worst deviation, as a share of the terms that the table sums there.

    Raises:
        UnsupportedError: it is above `TOLERANCE`, or a time differs; says which option to change.

    """
    name, worst, shape = table.provenance.scheduler, 0.0, (2, 3, 4, 5)
    for seed, scale in enumerate(SCALES):
        random = np.random.Generator(np.random.Philox(seed))
        history: list[np.ndarray] = []
        events: list[float | None] = []  # the time of an evaluation, None for a draw
        expected: list[np.ndarray] = []

        def fresh(event: float | None) -> torch.Tensor:
            events.append(event)  # noqa: B023 - called within this turn
            history.append(random.standard_normal(shape, dtype=np.float32) * np.float32(scale))  # noqa: B023
            return torch.from_numpy(history[-1].copy())  # noqa: B023 - a copy: the scheduler may write on it

        def model(latent: torch.Tensor, time: float) -> torch.Tensor:
            expected.append(latent.numpy().copy())  # noqa: B023
            return fresh(time)

        expected.append(drive(make(), loop, model, lambda _: fresh(None), shape).numpy())
        planned = [op.t if isinstance(op, Eval) else None for op in table.ops[:-1]]
        if planned != events:
            raise UnsupportedError(
                f"{name}'s times or draws depend on the data, so no table holds them. Choose another: `t2iexport list samplers`."
            )
        worst = max(worst, _deviation(table, history, expected))
    if not worst <= TOLERANCE:
        raise UnsupportedError(
            f"{name} is not a linear sampler: its table is {worst:.1e} off, and {TOLERANCE:.0e} is allowed{_advice(make())}."
        )
    return worst


def _deviation(table: Table, history: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    answers = iter(history)
    seen, times = [], []

    def denoise(latent: np.ndarray, time: float) -> np.ndarray:
        seen.append(latent.copy())
        times.append(time)
        return next(answers)

    seen.append(table.play(denoise, lambda: next(answers)))
    rows = [op.row for op in table.ops if not isinstance(op, Draw)]
    if times != [op.t for op in table.ops if isinstance(op, Eval)] or len(seen) != len(expected):
        return math.inf
    # By the largest of each latent: schedulers cancel large terms too, and leave their rounding where the sum is small.
    shares = [0.0]
    for row, got, wanted in zip(rows, seen, expected, strict=True):
        terms = sum((abs(c) * np.abs(latent) for c, latent in zip(row, history, strict=False)), np.zeros_like(wanted)).max()
        error = np.abs(got - wanted).max()
        shares.append(0.0 if error == 0 else float(error / terms) if terms > 0 and error < np.inf else math.inf)
    return max(shares)


def _advice(scheduler: Any) -> str:  # noqa: ANN401 - a diffusers scheduler
    if bends := [f"{key}: false" for key in _BENDS if scheduler.config.get(key)]:
        return f". Set in the recipe's sampler.config: {', '.join(bends)}"
    return ". Choose another: `t2iexport list samplers`"


def compile_sampler(
    name: str,
    config: Mapping[str, Any],
    steps: int,
    height: int,
    width: int,
    *,
    own: Mapping[str, Any] | None = None,
    step: Mapping[str, float] | None = None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    pixels_per_token: int = 16,
) -> Table:
    """Make a diffusers scheduler, read its table off, prove it, and write the deviation into it.

    Args:
        name: the scheduler's class in diffusers.
        config: changes to `own`; every key must be one that the class has.
        steps: as the pipeline would be asked for; equal to the number of own times.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        own: the model's `scheduler_config.json`, maybe of another class, whose keys that this one lacks are left out.
        step: arguments of `scheduler.step`, such as eta.
        timesteps: own time grid, instead of the scheduler's.
        sigmas: own noise levels, instead of the scheduler's.
        pixels_per_token: side of the square that one token of a transformer stands for, where times depend on the size.

    Returns:
        The table. Its provenance has `height` and `width` where the times depend on them (`use_dynamic_shifting`), else null.

    Raises:
        RecipeError: no such scheduler, an option that it lacks, or a number of times that is not `steps`.
        UnsupportedError: it is not linear; says what to change.
        MissingDependency: the scheduler needs a library that is not there.

    """
    kind, step = _scheduler(name), dict(step or {})
    known = list(inspect.signature(kind.__init__).parameters)[1:]
    takes = [key for key in inspect.signature(kind.step).parameters if key not in _STEP]
    problems = [*_unknown(f"sampler.config: {name}", config, known), *_unknown(f"sampler.step: {name}", step, takes)]
    problems += [
        f"sampler.scheduler: {name} has no {key}, and the model's own scheduler has {key}: {own[key]}{_having(key)}"
        for key in _MEANING
        if own and own.get(key) not in {None, False, "epsilon"} and key not in known
    ]
    grids = [len(given) for given in (timesteps, sigmas) if given is not None]
    if wrong := [count for count in grids if count != steps and name != "SCMScheduler"]:  # whose grid holds the arrival too
        problems.append(f"sampler: {wrong[0]} own times or sigmas are not {steps} steps. Name as many as there are steps.")
    if problems:
        raise RecipeError(problems)
    chosen = {**{key: value for key, value in (own or {}).items() if key in known}, **config}

    with blame(name, "its constructor"):
        pristine = kind(**chosen)
    make, settings = functools.partial(copy.deepcopy, pristine), pristine.config
    sized = bool(settings.get("use_dynamic_shifting"))
    mu = shift(settings, (height // pixels_per_token) * (width // pixels_per_token)) if sized else None
    loop = Loop(steps, step, timesteps, sigmas, mu)
    provenance = Provenance(
        scheduler=name,
        config=_plain(chosen),
        library=f"diffusers {version('diffusers')}",
        steps=steps,
        step=step,
        timesteps=timesteps and tuple(timesteps),
        sigmas=sigmas and tuple(sigmas),
        height=height if sized else None,
        width=width if sized else None,
        deviation=0.0,
    )
    table = trace(make, loop, provenance)
    proved = provenance.model_copy(update={"deviation": prove(table, make, loop)})
    return table.model_copy(update={"provenance": proved})


def _scheduler(name: str) -> Any:  # noqa: ANN401 - a class of diffusers'
    """Look the class up; by name, so that whatever diffusers adds is there without a line here."""
    if name in _REFUSED:
        raise UnsupportedError(f"{name} cannot be a table: {_REFUSED[name]}.")
    found = getattr(schedulers, name, None)
    if isinstance(found, type) and issubclass(found, SchedulerMixin) and found is not SchedulerMixin:
        if hasattr(found, "step") and hasattr(found, "set_timesteps"):
            return found
        raise UnsupportedError(
            f"{name} has no step or set_timesteps, so no pipeline's loop drives it. Choose another: `t2iexport list samplers`."
        )
    if missing := [library for library in getattr(found, "_backends", ()) if importlib.util.find_spec(library) is None]:
        raise MissingDependency(" and ".join(missing), "compile")
    compiled = [row.scheduler for row in survey() if not row.reason]
    raise RecipeError(f"sampler.scheduler: diffusers has no scheduler named {name!r}{did_you_mean(name, compiled)}")


def _unknown(where: str, given: Iterable[str], known: list[str]) -> list[str]:
    return [f"{where} has no option {key!r}{did_you_mean(key, known)}" for key in given if key not in known]


def _having(option: str) -> str:
    names = [row.scheduler for row in survey() if not row.reason]
    found = [name for name in names if option in inspect.signature(getattr(schedulers, name).__init__).parameters]
    return f"; these have it: {', '.join(found)}"


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Config as standard JSON, which has no infinity: diffusers' `lambda_min_clipped` is one."""
    return {key: str(value) if value in {math.inf, -math.inf} else value for key, value in config.items()}


@dataclass(frozen=True)
class Row:
    """What is known of one scheduler at some number of steps.

    Attributes:
        scheduler: class name in diffusers.
        config: what it was made with, beyond its defaults.
        evaluations: of the model, per step.
        stochastic: whether it draws noise after the initial latent.
        largest: coefficient, in size.
        deviation: of the table from the scheduler, as a share of the terms summed.
        reason: why there is no table, else empty.

    """

    scheduler: str
    config: Mapping[str, Any]
    evaluations: float = 0.0
    stochastic: bool = False
    largest: float = 0.0
    deviation: float = 0.0
    reason: str = ""


@functools.cache
def survey(steps: int = 8) -> tuple[Row, ...]:
    """Compile every scheduler that diffusers has, at its defaults but with clipping and thresholding off."""
    found = {name: getattr(schedulers, name) for name in dir(schedulers) if name.endswith("Scheduler")}
    return tuple(_row(name, kind, steps) for name, kind in sorted(found.items()))


def _row(name: str, kind: Any, steps: int) -> Row:  # noqa: ANN401 - a class of diffusers'
    known = inspect.signature(kind.__init__).parameters
    config = {key: False for key in _BENDS if key in known}
    try:
        table = compile_sampler(name, config, steps, 1024, 1024)
    except (UnsupportedError, MissingDependency) as error:
        return Row(name, config, reason=str(error).splitlines()[0])
    draws, evaluations = (sum(isinstance(op, wanted) for op in table.ops) for wanted in (Draw, Eval))
    largest = max(abs(value) for op in table.ops if not isinstance(op, Draw) for value in op.row)
    return Row(name, config, evaluations / steps, draws > 1, largest, table.provenance.deviation)
