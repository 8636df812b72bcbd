"""Pipelines that start from a picture: what they make of it before it meets the noise, and how many steps they leave out."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils import BaseOutput
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from engines.errors import RecipeError, UnsupportedError
from engines.images.init_image import InitImage
from engines.manifest import PartialStep, StartsFrom
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.dry_run import Play
from exporter.families.tracing.following.origins import DRAW, Origins, marked, origins, owners
from exporter.families.tracing.following.standins import Stepped, outlined, refused, stand_in
from exporter.families.tracing.pictures import image_arguments, own_preparation
from exporter.families.tracing.pipelines import siblings, two_stages
from exporter.families.tracing.pipelines.scales import steering
from exporter.families.tracing.played_parts import PlayedPart, sized

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey

#: Arguments of the call that are a picture to start from, and where it is made anew.
IMAGE, MASK = "image", "mask_image"
#: Steps and a strength of which every way of counting leaves out the first, and has one to take.
_STEPS, _STRENGTH = 2, 0.5
#: The same where the ways differ.
_TOLD: tuple[tuple[int, float], ...] = ((10, 0.55), (7, 0.4))


class Met(BaseException):
    """The picture meets the noise: `encoded` as the pipeline has it there, with the `noise` and the `time` at which it does."""

    def __init__(self, encoded: Tensor, noise: Tensor, time: Tensor) -> None:
        super().__init__()
        self.encoded, self.noise, self.time = encoded, noise, time


@dataclass(frozen=True)
class Start:
    """How one pipeline starts from a picture.

    Attributes:
        kind: its class.
        shown: input that is a condition → the argument of its call that is that picture.
        about: how it prepares the picture that it starts from.
        components: networks with which it encodes it.
        way: how it keeps the encoded picture (`dry_run.unpackings`).
        drawn: which of its noises, before the first step, conditions are made of, encodes the picture, and is the latent's; None
            is none.
        draws: how many noises it draws before its first step.
        partial: what becomes of a step in which a strength ends.
        turned: whether it takes its height for its width, as it has its picture resized.
        clean: whether what a mask keeps is without noise at every step, and not under as much as the step has.

    """

    kind: type
    shown: Mapping[str, str]
    about: image_arguments.Picture
    components: tuple[str, ...]
    way: int
    drawn: tuple[int | None, int | None, int]
    draws: int
    partial: PartialStep
    turned: bool = False
    clean: bool = False

    @property
    def order(self) -> tuple[int, ...]:
        """Which of its noises are taken, as they are drawn."""
        return tuple(number for number in self.drawn if number is not None)


class PlayedEncoder(PlayedPart):
    """What a pipeline starts from: image (1, height, width, 3) in [0, 1], and noise where it is random → latent (1, C, H, W).

    Args:
        start: how the pipeline does it.
        given: as of every part that is played.

    """

    def __init__(self, start: Start, *given: Any) -> None:  # noqa: ANN401 - of `PlayedPart`
        super().__init__(*given)
        self._start, self._pipeline = start, siblings.over(start.kind, self._pipeline)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Call the pipeline up to where the picture meets the noise."""
        start, survey = self._start, self._survey
        about, drawn = start.about.preprocessing, itertools.count()
        prepared = (image.permute(0, 3, 1, 2) - about.mean[0]) / about.std[0]
        sides = [length // self._factor for length in prepared.shape[2:]]
        latent = torch.zeros(image.shape[0], survey.latent[0], *sides)

        def draw(shape: Sequence[Any]) -> Tensor:
            if next(drawn) != start.drawn[1] or noise is None:
                return torch.zeros(tuple(shape))
            return noise if noise.ndim == len(shape) else noise.reshape(tuple(shape))

        def met(event: Met) -> Tensor:
            raise event

        play = Play(self._pipeline, draw, torch.zeros(1))
        meeting(play, met)
        play.place(**{name: getattr(self, name) for name in self._names}, **image_arguments.taking(self._pipeline, {}))
        play.encode_by(dry_run.replayed(self._bare(1)))
        pictures = {**_black(_given(start.kind), *(prepared.shape[axis] for axis in (0, 2, 3))), IMAGE: prepared}
        try:
            with sized(image):
                play(**asked(survey, self._pipeline, start.shown, pictures))
        except Met as event:
            return dry_run.unpacked(start.way, event.encoded, latent).float()
        raise RuntimeError(f"{start.kind.__name__} returned without noise")


def asked(survey: Survey, pipeline: Any, shown: Mapping[str, str], pictures: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ANN401
    """Arguments of a call that starts from `pictures`, by argument, all of one size; `shown` as `Start` has it."""
    usual = {name: value for name, value in survey.called(1).items() if name not in survey.pictures.values()}
    batch, _, height, width = pictures[IMAGE].shape
    own = survey.shown(batch, height, width, words=shown)
    own |= {name: marked(picture, name) for name, picture in pictures.items()}
    size = {"height": height, "width": width, "num_inference_steps": _STEPS, "strength": _STRENGTH}
    return {**usual, **steering(pipeline, survey.mode, survey.scale), **own, **size}


def _given(kind: type) -> list[str]:
    """Arguments of its call that say what to start from."""
    return [name for name in (IMAGE, MASK) if name in dry_run.arguments(kind)]


def _black(names: Iterable[str], batch: Any, height: Any, width: Any) -> dict[str, Tensor]:  # noqa: ANN401 - open lengths
    """Black pictures (batch, 3, height, width) by name."""
    return {name: torch.zeros(batch, 3, height, width) for name in names}


def meeting(play: Play, met: Callable[[Met], Tensor], steps: int = _STEPS) -> None:
    """Let a pipeline's scheduler have so many steps, whose times are their numbers, and call `met` where it adds noise."""
    real, placed = play.pipeline.scheduler, play.pipeline.scheduler.set_timesteps

    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - diffusers'
        placed(*args, **kwargs)
        self.timesteps, self.num_inference_steps = torch.arange(float(steps * getattr(real, "order", 1))), steps

    set_timesteps.__signature__ = inspect.signature(type(real).set_timesteps)  # type: ignore[attr-defined]

    def add_noise(_self: object, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return met(Met(original_samples, noise, timesteps))

    def scale_noise(_self: object, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        return met(Met(sample, noise, timestep))

    methods = {name: own for name, own in (("add_noise", add_noise), ("scale_noise", scale_noise)) if hasattr(real, name)}
    play.place(scheduler=stand_in(real, set_timesteps=set_timesteps, **methods))


def starts(survey: Survey) -> tuple[dict[StartsFrom, Start], list[str]]:
    """By what is given, `image` or `mask`, how the pipelines start that play the surveyed one's networks; and why others do not.

    Raises:
        UnsupportedError: the code of none can be followed.

    """
    found, refusals = dict[StartsFrom, Start](), list[UnsupportedError]()
    for given, kind in siblings.starting(type(survey.pipeline)).items():
        try:
            found[given] = _Followed(survey, kind).start()
        except UnsupportedError as error:
            refusals.append(error)
    if refusals and not found:
        raise refusals[0]
    notes = [f"not held to diffusers: {' '.join(str(error).split())}" for error in refusals]
    idle = [start.kind.__name__ for start in found.values() if start.draws > max(start.order) + 1]
    notes += [f"seeds: {name} at last draws a noise that changes nothing, so a seed is not diffusers' there" for name in idle]
    return found, notes


def _noting(networks: Mapping[str, Any], seen: set[str]) -> dict[str, Any]:
    """Networks that note, in `seen`, what was made of what they are asked about."""

    def noting(network: Any) -> Any:  # noqa: ANN401 - of diffusers
        def called(_self: object, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            given = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
            seen.update(*map(origins, given))
            return network(*args, **kwargs)

        return stand_in(network, __call__=called) if isinstance(network, nn.Module) else network

    return {name: noting(network) for name, network in networks.items()}


class _Followed:
    """One pipeline that starts from a picture, its networks on the meta device."""

    def __init__(self, survey: Survey, kind: type) -> None:
        self._survey, self._kind = survey, kind
        both = siblings.conditions(type(survey.pipeline), kind)
        self._shown = {name: both[argument] for name, argument in survey.pictures.items()}
        self._pipeline = siblings.over(kind, survey.pipeline)
        usual = survey.called(1)
        self._size = usual["height"], usual["width"]

    def start(self) -> Start:
        """Follow it."""
        name, survey = self._kind.__name__, self._survey
        guided = [steering(each, survey.mode, 1.0).keys() for each in (self._pipeline, survey.pipeline)]
        if survey.mode == "classifier_free" and guided[0] != guided[1]:
            where = f"sampler.guidance.mode: {survey.mode!r}"
            raise RecipeError(f"{where}, which {name} has not; use another, or leave vae_encoder out")
        if hasattr(type(two_stages.last(self._pipeline)), "add_noise"):
            raise UnsupportedError(
                f"{name} puts noise into its picture by a schedule of its own. A bundle's table holds its scheduler's.\n"
                "  This is a gap in t2iexport."
            )
        prepared: dict[str, image_arguments.Picture] = {}
        own_preparation.refuse_others(self._pipeline, *self._size)
        (met, *_), noises, asked_of, watch, play = self._run(_STEPS, _STRENGTH, prepared)
        if IMAGE not in prepared:
            raise UnsupportedError(f"{name} prepares what it starts from by code of its own, without an image processor.")
        made = origins(met.encoded)
        drawn = [number for number in range(len(noises)) if f"{DRAW}{number}" in made]
        if IMAGE not in made or len(made) != 1 + len(drawn) or len(drawn) > 1:
            raise UnsupportedError(f"{name} makes what it starts from of {', '.join(sorted(made)) or 'nothing that is shown'}.")
        noise = next((number for number, each in enumerate(noises) if f"{DRAW}{number}" in origins(met.noise)), None)
        if noise is None or any(noises[number].numel() != noises[noise].numel() for number in drawn):
            raise UnsupportedError(f"{name} encodes its picture with noise of another size than its latent's.")
        others = [number for number in range(len(noises)) if f"{DRAW}{number}" in asked_of and number not in (*drawn, noise)]
        order = (*others, *drawn, noise)
        if len(others) > 1 or list(order) != sorted(order):
            raise UnsupportedError(f"{name} draws its noises in an order that is not built: {', '.join(map(str, order))}.")
        way, _ = dry_run.packing(noises[noise].reshape(1, *survey.latent), met.noise, name)
        self._refuse_other_times(play)
        return Start(
            self._kind, dict(self._shown), prepared[IMAGE], tuple(watch.used), way,
            (others[0] if others else None, drawn[0] if drawn else None, noise), len(noises), self._partial(), self._turned(),
            clean=self._clean(),
        )  # fmt: skip

    def _run(
        self,
        steps: int,
        strength: float,
        prepared: dict[str, image_arguments.Picture] | None = None,
        sides: set[tuple[int | None, int | None]] | None = None,
        size: tuple[int, int] | None = None,
        on_step: Callable[..., Any] | None = None,
    ) -> tuple[list[Met], list[Tensor], set[str], Origins, Play]:
        """Run it to its first step, by default at the surveyed size, or to where `on_step` ends it.

        `sides` become the heights and widths that it resizes to.

        Returned are what met, every noise until then, what the step's networks were asked about was made of, and what the
        encoded picture was computed with.
        """
        survey, noises, found, asked_of = self._survey, list[Tensor](), list[Met](), set[str]()
        watch = Origins(owners=owners(self._pipeline))

        def draw(shape: Any) -> Tensor:  # noqa: ANN401
            count = int(torch.Size(shape).numel())
            noises.append(marked(torch.linspace(-1.0, 1.0, count).reshape(tuple(shape)), f"{DRAW}{len(noises)}"))
            return noises[-1]

        def meet(event: Met) -> Tensor:
            found.append(event)
            return event.noise

        play = Play(self._pipeline, draw, torch.zeros(1), watch)
        meeting(play, meet, steps)
        play.on_step = on_step or play.on_step
        play.place(
            **image_arguments.taking(self._pipeline, {} if prepared is None else prepared, sides),
            **_noting(survey.unasked(self._pipeline), asked_of),
        )
        play.encode_by(dry_run.replayed([each.found for each in survey.encodings]))
        called = asked(survey, self._pipeline, self._shown, _black(_given(self._kind), 1, *(size or self._size)))
        try:
            with outlined(), contextlib.suppress(Stepped):
                play(**{**called, "num_inference_steps": steps, "strength": strength})
        except UnsupportedError:
            raise
        except Exception as error:
            raise refused(self._kind.__name__, error, self._pipeline.components) from error
        if not found:
            raise UnsupportedError(f"{self._kind.__name__} adds no noise to what it starts from.")
        return found, noises, asked_of, watch, play

    def _turned(self) -> bool:
        """Whether it has a picture that is wider than high resized to one that is higher than wide."""
        length, sides = max(self._size), set[tuple[int | None, int | None]]()
        self._run(_STEPS, _STRENGTH, {}, sides, size=(length, 2 * length))
        return (2 * length, length) in sides

    def _clean(self) -> bool:
        """Whether its second step finds the clean picture again where a mask, which is black, keeps everything."""
        if MASK not in _given(self._kind):
            return False
        begun = list[Any]()

        def on_step(output: Any, _time: Any, sample: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
            begun.append(sample)
            if len(begun) == _STEPS:
                raise Stepped(output, sample, options)
            made = BaseOutput(prev_sample=torch.full_like(sample, 7.0))
            return made if options.get("return_dict", True) else made.to_tuple()

        met, *_ = self._run(2 * _STEPS, _STRENGTH, on_step=on_step)  # of which that leaves out half
        last, picture = begun[-1], met[0].encoded
        if len(met) > 1 or last.is_meta or picture.is_meta:
            return False
        return last.shape == picture.shape and torch.equal(last, picture)

    def _partial(self) -> PartialStep:
        """How it counts steps, by where it begins."""
        order, begun = getattr(self._pipeline.scheduler, "order", 1), list[float]()
        for steps, strength in _TOLD:
            begun.append(float(self._run(steps, strength)[0][0].time.flatten()[0]) / order)
        ways: tuple[PartialStep, ...] = ("dropped", "taken")
        for way in ways:
            if begun == [InitImage.left_out(steps, strength, way) for steps, strength in _TOLD]:
                return way
        told = ", ".join(f"{at:g} of {steps} at {strength}" for at, (steps, strength) in zip(begun, _TOLD, strict=True))
        raise UnsupportedError(f"{self._kind.__name__} leaves steps out in no way that is known ({told}).")

    def _refuse_other_times(self, play: Play) -> None:
        """Raise UnsupportedError where it hands other times to the scheduler than the pipeline from text."""
        ignored = {"num_inference_steps"} | (set() if play.pipeline.scheduler.config.get("use_dynamic_shifting") else {"mu"})
        own = {name: value for name, value in play.grid.asked.items() if name not in ignored}
        usual = self._survey.times(*self._size, _STEPS)
        if repr(own) != repr({name: value for name, value in usual.items() if name not in ignored}):
            raise UnsupportedError(f"{self._kind.__name__} has other times than {self._survey.name}, and one table is built.")
