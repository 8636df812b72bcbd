"""The one denoising loop: diffusers' scheduler, with the model and the dice as arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from engines.errors import T2IError, UnsupportedError
from exporter.families import Driving
from exporter.schedulers.preview import Preview

#: `draw(shape)`: the next standard normal noise, float32, or float64 where the run is to be without rounding.
Drawing = Callable[[tuple[int, ...]], torch.Tensor]
#: `model(latent, time)`: what the denoiser would answer, of the latent's shape.
Model = Callable[[torch.Tensor, float], torch.Tensor]

_CASTS = (torch.Tensor.to, torch.Tensor.float, torch.Tensor.type)


@dataclass(frozen=True)
class Quirk:
    """How the pipelines' loop differs for one scheduler.

    Attributes:
        arrival: whether the last of `scheduler.timesteps` is where the loop arrives, which the model does not see.
        each: whether `scheduler.step` wants a time for each picture.
        scale: the config's key for the standard deviation of the initial latent.
        arguments: steps, whether the times are the user's → further arguments of `set_timesteps`.

    """

    arrival: bool = False
    each: bool = False
    scale: str | None = None
    arguments: Callable[[int, bool], Mapping[str, Any]] = lambda _steps, _own: {}


def _trig_flow(steps: int, own: bool) -> Mapping[str, Any]:  # noqa: FBT001 - called by position
    ends = {"max_timesteps": None, "num_inference_steps": steps} if own else {}
    return {**ends, "intermediate_timesteps": 1.3 if steps == 2 and not own else None}


#: SCM's last time is where it arrives (diffusers' pipeline_sana_sprint.py); it works in units of the data, not of noise. So is
#: Würstchen's (pipeline_wuerstchen_prior.py), whose times are shares of the noise's way.
_QUIRKS = {
    "SCMScheduler": Quirk(arrival=True, scale="sigma_data", arguments=_trig_flow),
    "DDPMWuerstchenScheduler": Quirk(arrival=True, each=True),
}


@dataclass(frozen=True)
class Loop:
    """What the denoising loop is told.

    Attributes:
        steps: how many.
        step: arguments of `scheduler.step`.
        timesteps: own times, instead of the scheduler's.
        sigmas: own noise levels, instead of the scheduler's.
        mu: shift of the times.
        start: steps that are left out at the beginning, where there is a given latent; None goes from noise to latent.
        noised: whether it then begins with the given latent under noise, as image to image does, or, as inpainting at full
            strength, with noise alone.
        strength: over which the steps are spread, where the pipeline tells the scheduler.
        goes_on: evaluations that are left out, where it goes on from a latent that another run has left; None begins one.
        driving: how the pipeline does it.

    """

    steps: int
    step: Mapping[str, float] = field(default_factory=dict)
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    mu: float | None = None
    start: int | None = None
    noised: bool = True
    strength: float | None = None
    goes_on: int | None = None
    driving: Driving = field(default_factory=Driving)

    @property
    def given(self) -> bool:
        """Whether there is a given latent."""
        return self.start is not None or self.goes_on is not None


class InjectedNoise(TorchFunctionMode):
    """Within it, `draw` answers every normal noise that this thread's torch code asks for, in order; other randomness refuses.

    Independent of how a scheduler spells its import, and without patching: torch hands every call to the innermost mode.
    What `draw` itself calls is not intercepted.

    Raises:
        UnsupportedError: a random function that is not normal noise was called.

    """

    def __init__(self, draw: Drawing, caller: str = "the scheduler") -> None:
        super().__init__()
        self._draw, self._caller = draw, caller

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "randn":
            size = kwargs.get("size", args)
            shape = tuple(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
            return self._draw(shape).to(kwargs.get("dtype") or torch.get_default_dtype())
        if name == "randn_like":
            like = kwargs.get("input", *args)
            return self._draw(tuple(like.shape)).to(kwargs.get("dtype") or like.dtype)
        if name == "normal":
            return self._normal(*args, **kwargs)
        if name == "normal_":
            return args[0].copy_(self._normal(*args[1:], **{"size": args[0].shape, **kwargs}))
        if _is_random(name) and not _at_rest(name, args, kwargs):
            raise UnsupportedError(
                f"{self._caller} calls torch's {name}; only normal noise (randn, randn_like, normal, normal_) can be supplied. "
                "Choose another scheduler: `t2iexport list samplers`."
            )
        return func(*args, **kwargs)

    def _normal(
        self,
        mean: torch.Tensor | float = 0.0,
        std: torch.Tensor | float = 1.0,
        size: Sequence[int] | None = None,
        **_: object,
    ) -> torch.Tensor:
        shapes = [tuple(value.shape) for value in (mean, std) if isinstance(value, torch.Tensor)]
        return mean + std * self._draw(tuple(torch.broadcast_shapes(*shapes) if size is None else size))


def _at_rest(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a network's dropout, or an attention's, drops nothing; attention does not unless it is told."""
    if name == "scaled_dot_product_attention":
        return kwargs.get("dropout_p", args[4] if len(args) > 4 else 0) == 0
    return kwargs.get("training") is False or kwargs.get("dropout_p") == 0


@functools.cache
def _is_random(name: str) -> bool:
    """Whether torch itself says that the operator of that name draws; so the list is torch's, not ours."""
    operator = getattr(torch.ops.aten, name, None)
    if not isinstance(operator, torch._ops.OpOverloadPacket):  # noqa: SLF001 - has no public name
        return False
    return any(torch.Tag.nondeterministic_seeded in getattr(operator, overload).tags for overload in operator.overloads())


class Unrounded(TorchFunctionMode):
    """Within it, float64 latents stay float64 where a scheduler casts them to float32.

    So a scheduler's own arithmetic shows without the rounding of its largest terms: what is left is what it means. Its
    coefficients stay what they are.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        found = func(*args, **(kwargs or {}))
        if func in _CASTS and args[0].dtype == torch.float64 and args[0].dim() > 1 and found.dtype == torch.float32:
            return args[0]
        return found


def drive(
    scheduler: Any,  # noqa: ANN401 - diffusers' schedulers share no protocol
    loop: Loop,
    model: Model,
    draw: Drawing,
    shape: tuple[int, ...],
    *,
    given: Callable[[], torch.Tensor] | None = None,
    mask: torch.Tensor | None = None,
    peek: Callable[[torch.Tensor | None], None] | None = None,
    own: Callable[[torch.Tensor], None] = lambda _: None,
) -> torch.Tensor:
    """Denoise as diffusers' pipelines do, with the model and the dice as arguments.

    Args:
        scheduler: a fresh diffusers scheduler; it is used up.
        loop: what the pipeline would be asked for.
        model: called once per evaluation, with the scaled latent and the model time.
        draw: called for the initial noise first, where the loop begins with one, then for every noise that the scheduler draws;
            its type is the loop's.
        shape: of the latent.
        given: called once, after the initial noise, where `loop.given` says that there is a given latent.
        mask: 1 where inpainting makes the latent anew, 0 where it keeps the given one; broadcasts to the shape.
        peek: told after every step which clean latent the step was towards; None where neither the scheduler nor its
            configuration says.
        own: told before every evaluation what the scheduler's latent is, before it is scaled for the model.

    Returns:
        The final latent, of the type of the noise.

    Raises:
        UnsupportedError: the scheduler raised, draws other than normal noise, or cannot add noise to a given latent.

    """
    quirk = _quirk(scheduler)

    def call(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - diffusers' own
        with blame(type(scheduler).__name__, method.__name__, advice), Unrounded(), InjectedNoise(draw, type(scheduler).__name__):
            return method(*args, **kwargs)

    def noised(time: torch.Tensor) -> torch.Tensor:
        if hasattr(scheduler, "scale_noise"):  # of the flow-matching schedulers
            return call(scheduler.scale_noise, _needed(original), time, noise)
        return call(scheduler.add_noise, _needed(original), noise, time)

    advice, noise = "", None if loop.goes_on is not None else draw(shape)
    original = given() if given else None
    with InjectedNoise(draw, type(scheduler).__name__):
        set_times(scheduler, loop)
    times, first = _times(scheduler, loop, quirk)
    if first is not None:
        call(scheduler.set_begin_index, first)
    latent = _needed(original) if noise is None else noise
    advice = "" if first is not None or not hasattr(scheduler, "set_begin_index") else _two_at_once(times, loop)
    kind = latent.dtype
    if loop.start is not None and loop.noised:
        latent = noised(times[:1])
    elif loop.goes_on is None:
        with blame(type(scheduler).__name__, "the scale of its first noise"):
            unit = scheduler.config[quirk.scale] if quirk.scale else loop.driving.unit
            latent = latent * getattr(scheduler, "init_noise_sigma", 1.0) * unit
    latent = _within(mask, latent, _needed(original)) if mask is not None and loop.driving.clean else latent
    look = Preview(scheduler) if peek else None
    for index, time in enumerate(times):
        scaled = call(scheduler.scale_model_input, latent, time) if hasattr(scheduler, "scale_model_input") else latent
        own(latent.to(kind))
        scaled, told = loop.driving.shown(scheduler, latent, scaled, time, index + (first or 0))
        output = model(scaled.to(kind), told)
        at = time.expand(len(latent)) if quirk.each else time
        result = call(scheduler.step, output, at, latent, **loop.step, return_dict=True)
        latent = result.prev_sample
        if look and peek:
            with blame(type(scheduler).__name__, "the clean latent of a step"):
                clean = look(result, scaled, output, time)
            peek(clean)
        if mask is not None:
            last = index + 1 == len(times)
            kept = _needed(original) if last or loop.driving.clean else noised(times[index + 1 : index + 2])
            latent = _within(mask, latent, kept)
    return latent.to(kind)


def _within(mask: torch.Tensor, anew: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """One latent where a mask is 1, the other where it is 0."""
    return (1 - mask) * kept + mask * anew


def _times(scheduler: Any, loop: Loop, quirk: Quirk) -> tuple[torch.Tensor, int | None]:  # noqa: ANN401 - a diffusers scheduler
    """Times that the model sees, and the index of the first where the pipeline tells the scheduler."""
    # A scheduler of order 2 lists each of its times twice.
    first = (loop.start or 0) * getattr(scheduler, "order", 1) if loop.goes_on is None else loop.goes_on
    if loop.start is not None:
        refuse_given(scheduler)
    told = loop.driving.begins or loop.given  # from a given latent, every pipeline says so
    index = first if told and hasattr(scheduler, "set_begin_index") else None
    return scheduler.timesteps[first : -1 if quirk.arrival else None], index


def _two_at_once(times: torch.Tensor, loop: Loop) -> str:
    """What to say where a scheduler fails that was not told where to begin; empty where it does not matter."""
    if sum(times == times[0]) < 2:
        return ""
    return (
        f"Its first two steps are at one time, {float(times[0]):g}, and {loop.driving.pipeline} does not tell it at which of "
        "them it begins, so diffusers fails too. Change steps, or the sampler's config."
    )


def _quirk(scheduler: Any) -> Quirk:  # noqa: ANN401 - a diffusers scheduler
    return _QUIRKS.get(type(scheduler).__name__, Quirk())


def beyond_its_own(kind: Any, steps: int, told: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a class of diffusers' schedulers
    """What a pipeline tells `set_timesteps` that the loop would not by itself: its sigmas, times, and their shift.

    Raises:
        UnsupportedError: it tells something else.

    """
    usual = {name: about.default for name, about in inspect.signature(kind.set_timesteps).parameters.items()}
    usual |= _QUIRKS.get(kind.__name__, Quirk()).arguments(steps, False)  # noqa: FBT003 - called by position
    found = {name: value for name, value in told.items() if name not in usual or usual[name] != value}
    if others := {name: value for name, value in found.items() if name not in ("sigmas", "timesteps", "mu")}:
        said = ", ".join(f"{name} {value}" for name, value in others.items())
        raise UnsupportedError(
            f"the pipeline tells {kind.__name__} {said} for {steps} steps, which is not built.\n"
            f"  Write model.call: {{{', '.join(f'{name}: null' for name in others)}}}, if it can do without."
        )
    return found


def set_times(scheduler: Any, loop: Loop) -> None:  # noqa: ANN401 - a diffusers scheduler
    """Call `set_timesteps` as diffusers' `retrieve_timesteps` does; raises UnsupportedError where it raises."""
    arguments = _arguments(scheduler, loop, _quirk(scheduler))
    with blame(type(scheduler).__name__, "set_timesteps"):
        scheduler.set_timesteps(**arguments)


def refuse_undriven(scheduler: Any, driving: Driving) -> None:  # noqa: ANN401 - a diffusers scheduler
    """Raise UnsupportedError where the pipeline reads what the scheduler lacks, so that diffusers cannot run the two either."""
    if lacking := [name for name in driving.needs if not hasattr(scheduler, name)]:
        kind, shift = type(scheduler).__name__, scheduler.config.get("shift")
        way = "Choose another: `t2iexport list samplers`"
        if kind.startswith("FlowMatch"):
            flow = f"prediction_type: flow_prediction, use_flow_sigmas: true, flow_shift: {shift or 1.0:g}"
            way = f"For flow matching take scheduler: UniPCMultistepScheduler, config: {{{flow}}}"
        raise UnsupportedError(
            f"{kind} cannot be driven by {driving.pipeline}, which reads its {' and '.join(lacking)}; it has none, so diffusers "
            f"fails too. {way}."
        )


def _needed(given: torch.Tensor | None) -> torch.Tensor:
    """The given latent, where a start or a mask asks for one."""
    if given is None:
        raise TypeError("a loop that starts from a given latent, or has a mask, needs one")
    return given


def refuse_given(scheduler: Any) -> None:  # noqa: ANN401 - a diffusers scheduler
    """Raise UnsupportedError where no given latent can be brought to one of the scheduler's times."""
    if not hasattr(scheduler, "add_noise") and not hasattr(scheduler, "scale_noise"):
        raise UnsupportedError(
            f"{type(scheduler).__name__} cannot add noise to a given picture (it has no add_noise), so there is no image to "
            "image with it. Leave vae_encoder out of the recipe's components, or choose another scheduler."
        )


def _arguments(scheduler: Any, loop: Loop, quirk: Quirk) -> dict[str, Any]:  # noqa: ANN401 - a diffusers scheduler
    """Arguments of `set_timesteps`, as diffusers' `retrieve_timesteps` chooses them."""
    wished = {"timesteps": loop.timesteps, "sigmas": loop.sigmas, "mu": loop.mu, "strength": loop.strength}
    given = {key: list(value) if isinstance(value, Sequence) else value for key, value in wished.items() if value is not None}
    takes = set(inspect.signature(scheduler.set_timesteps).parameters)
    if cannot := sorted(set(given) - takes):
        raise UnsupportedError(
            f"{type(scheduler).__name__} takes no own {' or '.join(cannot)}. Leave it out, or choose another scheduler."
        )
    own = "timesteps" in given or "sigmas" in given
    return {**({} if own else {"num_inference_steps": loop.steps}), **given, **quirk.arguments(loop.steps, own)}


def shift(config: Mapping[str, Any], tokens: int) -> float:
    """Shift of the times for that many tokens: `calculate_shift` of diffusers' pipeline_flux.py, with its defaults."""
    least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return low + (high - low) / (most - least) * (tokens - least)


class FailedError(UnsupportedError):
    """diffusers' own code raised or gave no number, and nobody knows yet which value of the config it is due to."""


@contextmanager
def blame(name: str, where: str, advice: str = "") -> Iterator[None]:
    """Turn whatever diffusers raises into an UnsupportedError that names the scheduler, where it was, and what to do."""
    try:
        yield
    except T2IError:
        raise
    except Exception as error:
        kind = UnsupportedError if advice else FailedError  # who knows what to do need not look for what it is due to
        advice = advice or "Change the recipe's sampler (config, steps, timesteps), or choose another: `t2iexport list samplers`."
        raise kind(f"{name} failed in {where}: {type(error).__name__}: {str(error) or 'without a word'}\n{advice}") from error
