"""Scheduler → table, proved: which schedulers there are, and how a recipe configures one."""

from __future__ import annotations

import copy
import functools
import importlib.util
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from diffusers import SchedulerMixin, schedulers

from engines.errors import MissingDependency, RecipeError, UnsupportedError
from engines.plugins import did_you_mean
from engines.samplers.table import Draw, Eval, Handovers, Starts, Table, TableProvenance
from exporter.families import Driving
from exporter.models import predictor_corrector
from exporter.recipe import aliases
from exporter.recipe.yaml_source import brief
from exporter.schedulers.loop import FailedError, Loop, blame, refuse_given, refuse_undriven, set_times, shift
from exporter.schedulers.settings import Settings
from exporter.schedulers.trace import BENDS, prove, trace

__all__ = ["Configured", "Row", "compile_sampler", "configure", "survey"]

_BROWNIAN = (
    "its noise comes from a Brownian tree, whose draws depend on each other. "
    "Take DPMSolverMultistepScheduler with config algorithm_type: sde-dpmsolver++"
)
_REFUSED = {"DPMSolverSDEScheduler": _BROWNIAN, "CosineDPMSolverMultistepScheduler": _BROWNIAN}
#: What the network's output means, and how its noise ends: a scheduler without such an option cannot stand in for one with it.
_MEANING = ("prediction_type", "rescale_betas_zero_snr")
#: How finely strengths are told apart.
_STRENGTHS = 1000
#: Arguments of `scheduler.step` that are the loop's own.
_STEP = ("self", "model_output", "timestep", "sample", "generator", "return_dict")


@dataclass(frozen=True)
class Configured:
    """A scheduler, ready to be compiled.

    Attributes:
        make: returns a fresh one.
        loop: what the pipeline would be asked for.
        provenance: goes into the tables; its deviation is not yet known.
        settings: what it is made with.

    """

    make: Callable[[], Any]
    loop: Loop
    provenance: TableProvenance
    settings: Settings

    def table(self) -> Table:
        """The table from noise to latent, proved; raises UnsupportedError where the scheduler is not linear."""
        table, deviation = self._proved(self.loop)
        return table.model_copy(update={"provenance": self.provenance.model_copy(update={"deviation": deviation})})

    def starts(self, *, spread: bool = False) -> Starts:
        """The tables that start from a given latent, each proved, with a mask and without.

        `spread`: the pipeline tells the scheduler the strength, over which that spreads all steps.

        Raises:
            UnsupportedError: the scheduler cannot add noise to a given latent, or is not linear.

        """
        refuse_given(self.make())
        strengths = self._strengths() if spread else None
        if strengths is None:
            loops = [replace(self.loop, start=start) for start in range(self.loop.steps)]
        else:
            loops = [replace(self.loop, start=0, strength=strength) for strength in strengths]
        whole = replace(self.loop, start=0, noised=self.loop.driving.clean)
        alone, *starts = [self._proved(loop) for loop in (whole, *loops)]
        worst = max(deviation for _, deviation in (alone, *starts))
        provenance = self.provenance.model_copy(update={"deviation": worst})
        ops = tuple(table.ops for table, _ in starts)
        return Starts(provenance=provenance, alone=alone[0].ops, starts=ops, strengths=strengths)

    def handovers(self) -> Handovers:
        """The tables that stop, or begin, between two evaluations, each proved.

        Raises:
            UnsupportedError: the scheduler is not linear, or its config does not say how many times the noise's whole way has.

        """
        scheduler = self.make()
        training = scheduler.config.get("num_train_timesteps")
        if not training:
            raise UnsupportedError(
                f"{self.settings.kind.__name__} does not say how many times it was trained at (num_train_timesteps), by which "
                "denoising_start and denoising_end count.\n  Leave sampler.handover out, or choose another scheduler."
            )
        whole = self._proved(self.loop, stops=True)
        times, paired = tuple(op.t for op in whole[0].ops if isinstance(op, Eval)), getattr(scheduler, "order", 1) == 2
        starts = {
            left: self._proved(replace(self.loop, goes_on=left), stops=True)
            for left in Handovers.reached(len(times), paired=paired)
        }
        worst = max(deviation for _, deviation in (whole, *starts.values()))
        return Handovers(
            provenance=self.provenance.model_copy(update={"deviation": worst}), training_times=training, paired=paired,
            times=times, whole=whole[0].ops, starts={left: table.ops for left, (table, _) in starts.items()},
        )  # fmt: skip

    def _strengths(self) -> tuple[float, ...]:
        """The smallest strength, in thousandths, of each grid of times that the scheduler makes of strengths."""
        found, last = list[float](), None
        for strength in (number / _STRENGTHS for number in range(1, _STRENGTHS + 1)):
            scheduler = self.make()
            try:
                set_times(scheduler, replace(self.loop, strength=strength))
            except FailedError:  # over so little it cannot spread so many
                continue
            times = [float(time) for time in scheduler.timesteps]
            found += [strength] * (times != last)
            last = times
        if not found:
            set_times(self.make(), replace(self.loop, strength=1.0))
        return tuple(found)

    def _proved(self, loop: Loop, *, stops: bool = False) -> tuple[Table, float]:
        read = functools.partial(_read, loop=loop, provenance=self.provenance, stops=stops)
        try:
            return read(self.make)
        except FailedError as error:
            kind = self.settings.kind
            raise self.settings.explained(error, lambda config: read(_maker(kind, config))) from error


def _read(make: Callable[[], Any], loop: Loop, provenance: TableProvenance, *, stops: bool) -> tuple[Table, float]:
    """A table and how far it is off in its proof."""
    table = trace(make, loop, provenance, stops=stops)
    return table, prove(table, make, loop)


def compile_sampler(name: str, config: Mapping[str, Any], steps: int, height: int, width: int, **options: Any) -> Table:  # noqa: ANN401 - `configure` types them
    """Make a diffusers scheduler, read its table off, and prove it: `configure`, whose arguments these are, and `table`.

    Returns:
        The table. Its provenance has `height` and `width` where the times depend on them (`use_dynamic_shifting`), else null.

    """
    return configure(name, config, steps, height, width, **options).table()


def configure(
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
    mu: float | None = None,
    pixels_per_token: int = 16,
    driving: Driving = Driving(),  # noqa: B008 - frozen
) -> Configured:
    """Make a diffusers scheduler as a recipe asks for it.

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
        mu: shift of the times that the model's pipeline hands to the scheduler; by default what the scheduler's config says.
        pixels_per_token: side of the square that one token of a transformer stands for, where times depend on the size.
        driving: how the model's pipeline drives a scheduler.

    Raises:
        RecipeError: no such scheduler, an option that it lacks or of another type, or a number of times that is not `steps`.
        UnsupportedError: diffusers refuses it, the pipeline does not drive it, or it is known not to be linear; says what to
            change.
        MissingDependency: the scheduler needs a library that is not there.

    """
    kind, step = scheduler_named(name), dict(step or {})
    if predictor_corrector.of_scores(kind) and own and own.get("_class_name", name) != name:
        raise UnsupportedError(
            f"{name} takes scores from its network, and the model's own scheduler is {own['_class_name']}, whose network gives "
            "none. Choose another: `t2iexport list samplers`."
        )
    known = list(inspect.signature(kind.__init__).parameters)[1:]
    takes = [key for key in inspect.signature(kind.step).parameters if key not in _STEP]
    problems = [*_unknown(f"sampler.config: {name}", config, known), *_unknown(f"sampler.step: {name}", step, takes)]
    chosen = {**{key: value for key, value in (own or {}).items() if key in known}, **config}
    settings = Settings(kind, chosen, frozenset(config))
    wrong = settings.mistyped(key for key in config if key in known)
    problems += [f"sampler.config.{key}: must be {must}, not {brief(config[key])}" for key, must in wrong.items()]
    problems += [
        f"sampler.scheduler: {name} has no {key}, and the model's own scheduler has {key}: {own[key]}{_having(key)}"
        for key in _MEANING
        if own and own.get(key) not in (None, False, "epsilon") and key not in known
    ]
    if timesteps is not None and len(timesteps) != steps and name != "SCMScheduler":  # whose grid holds the arrival too
        problems.append(f"sampler: {len(timesteps)} own times are not {steps} steps. Name as many as there are steps.")
    if problems:
        raise RecipeError(problems)

    try:
        make = _maker(kind, chosen)
    except FailedError as error:
        raise settings.explained(error, functools.partial(_maker, kind)) from error
    pristine = make()
    refuse_undriven(pristine, driving)
    sized = bool(pristine.config.get("use_dynamic_shifting"))
    if sized and mu is None:
        tokens = (height // pixels_per_token) * (width // pixels_per_token)
        try:
            mu = _shifted(make, tokens)
        except FailedError as error:
            raise settings.explained(error, lambda config: _shifted(_maker(kind, config), tokens)) from error
    given = {key: value for key, value in driving.step.items() if key in takes}
    loop = Loop(steps, {**given, **step}, timesteps, sigmas, mu, driving=driving)
    if sigmas is not None:
        _refuse_other_steps(make(), loop)
    provenance = TableProvenance(
        scheduler=name,
        config=_plain(chosen),
        library=f"diffusers {version('diffusers')}",
        steps=steps,
        step=step,
        timesteps=None if timesteps is None else tuple(timesteps),
        sigmas=None if sigmas is None else tuple(sigmas),
        height=height if sized else None,
        width=width if sized else None,
        deviation=0.0,
    )
    return Configured(make, loop, provenance, settings)


def _maker(kind: Any, config: Mapping[str, Any]) -> Callable[[], Any]:  # noqa: ANN401 - a class of diffusers'
    """What returns a fresh scheduler every time."""
    with blame(kind.__name__, "its constructor"):
        return functools.partial(copy.deepcopy, kind(**config))


def _shifted(make: Callable[[], Any], tokens: int) -> float:
    """The shift of a scheduler's times that its pipeline computes for so many tokens."""
    scheduler = make()
    with blame(type(scheduler).__name__, "the shift of its times"):
        return shift(scheduler.config, tokens)


def _refuse_other_steps(scheduler: Any, loop: Loop) -> None:  # noqa: ANN401 - a diffusers scheduler
    """Raise RecipeError where own sigmas make another number of steps: some schedulers want the arrival among them."""
    set_times(scheduler, loop)
    if (made := scheduler.num_inference_steps) != loop.steps:
        count, arrival = len(loop.sigmas or ()), ", since its last one is where it arrives: add 0.0" * (made == loop.steps - 1)
        raise RecipeError(
            f"sampler.sigmas: {count} sigmas are {made} steps of {type(scheduler).__name__}, not {loop.steps}{arrival}"
        )


def scheduler_named(name: str) -> Any:  # noqa: ANN401 - a class of diffusers'
    """Look the class up; by name, so that whatever diffusers adds is there without a line here."""
    if name in _REFUSED:
        raise UnsupportedError(f"{name} cannot be a table: {_REFUSED[name]}.")
    found = predictor_corrector.stepped(getattr(schedulers, name, None))
    if isinstance(found, type) and issubclass(found, SchedulerMixin) and found is not SchedulerMixin:
        if hasattr(found, "step") and hasattr(found, "set_timesteps"):
            return found
        raise UnsupportedError(
            f"{name} has no step or set_timesteps, so no pipeline's loop drives it. Choose another: `t2iexport list samplers`."
        )
    if missing := [library for library in getattr(found, "_backends", ()) if importlib.util.find_spec(library) is None]:
        raise MissingDependency(" and ".join(missing), "compile")
    lacking = f"sampler.scheduler: diffusers has no scheduler named {name!r}"
    if found := aliases.absent(name):
        raise RecipeError(f"{lacking}; the nearest that it has is {found!r}")
    compiled = [row.scheduler for row in survey() if not row.reason]
    hint = did_you_mean(name, compiled)
    close = None if hint.startswith("; did you mean") else aliases.near(name)
    raise RecipeError(f"{lacking}; did you mean {close!r}?" if close else f"{lacking}{hint}")


def _unknown(where: str, given: Iterable[str], known: list[str]) -> list[str]:
    return [f"{where} has no option {key!r}{did_you_mean(key, known)}" for key in given if key not in known]


def _having(option: str) -> str:
    names = [row.scheduler for row in survey() if not row.reason]
    found = [name for name in names if option in inspect.signature(getattr(schedulers, name).__init__).parameters]
    return f"; these have it: {', '.join(found)}"


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Config as standard JSON, which has no infinity: diffusers' `lambda_min_clipped` is one."""
    return {key: str(value) if isinstance(value, float) and math.isinf(value) else value for key, value in config.items()}


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
    config = {key: False for key in BENDS if key in known}
    try:
        table = compile_sampler(name, config, steps, 1024, 1024)
    except (UnsupportedError, MissingDependency) as error:
        return Row(name, config, reason=str(error).splitlines()[0])
    draws, evaluations = (sum(isinstance(op, wanted) for op in table.ops) for wanted in (Draw, Eval))
    largest = max(abs(value) for op in table.ops for value in getattr(op, "row", ()))
    return Row(name, config, evaluations / steps, draws > 1, largest, table.provenance.deviation)
