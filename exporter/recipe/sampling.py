"""How a recipe samples: diffusers' scheduler, its time grid, and how the prompt steers step by step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from engines.strict import Frozen
from exporter.recipe import aliases, timestep_lists

Text = Annotated[str, StringConstraints(min_length=1)]
#: Steps from which caching is built. Measured: at 8 and fewer nothing is gained before images differ.
FEWEST_CACHED = 9
Share = Annotated[float, Field(ge=0, le=1)]


def _form(value: object) -> str:
    """How model times are given."""
    if isinstance(value, Mapping | timestep_lists.PowerLaw):
        return "|power"
    return "|name" if isinstance(value, str) else "|times"


#: Model times, the name of a published list of them, or a power law.
Timesteps = Annotated[
    Annotated[timestep_lists.Name, Tag("|name")]
    | Annotated[timestep_lists.PowerLaw, Tag("|power")]
    | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), Tag("|times")],
    Discriminator(_form),
]


def _in_decibels(value: Any) -> Any:  # noqa: ANN401 - unchecked YAML
    """The number of `30 dB`, which may stand without its unit."""
    number = value.removesuffix("dB").strip() if isinstance(value, str) else ""
    return float(number) if number.replace(".", "", 1).isdecimal() else value


#: PSNR, as a number or such as `30 dB`.
Decibels = Annotated[
    float, BeforeValidator(_in_decibels, json_schema_input_type=float | str), Field(gt=0, allow_inf_nan=False, le=100)
]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [value for index, value in enumerate(values) if value in values[:index]]:
        raise ValueError(f"names {twice[0]} twice; keep one")
    return values


class PagOptions(Frozen):
    """Perturbed-attention guidance (2403.17377): away from what the network says where some self-attention sees nothing."""

    scale: float = Field(
        default=3.0, gt=0, allow_inf_nan=False, description="default of the run-time input pag_scale, which at 0 is off"
    )
    layers: tuple[Text, ...] = Field(
        default=("mid",),
        min_length=1,
        description="whose self-attention is the identity: parts of names in the UNet, such as mid or up_blocks.1.attentions.0, "
        "or patterns (pag_applied_layers in diffusers)",
    )
    adaptive: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="how much less the scale is for each timestep below 1000, down to 0 (pag_adaptive_scale)",
    )

    @model_validator(mode="after")
    def _patterned(self) -> Self:
        for layer in self.layers:
            try:
                re.compile(layer)
            except re.error as error:
                raise ValueError(
                    f"layers: {layer!r} is no pattern: {error}; write a part of a layer's name, such as mid"
                ) from error
        return self


class GuidanceOptions(Frozen):
    """How the prompt steers."""

    mode: Literal["none", "classifier_free", "embedded"] = "none"
    scale: float | None = Field(default=None, description="default of the run-time input; null where mode is none")
    rescale: float = Field(
        default=0.0, ge=0, le=1, description="how far the mix gets the prompt's own contrast back (guidance_rescale in diffusers)"
    )
    interval: tuple[Share, Share] | None = Field(
        default=None, description="from which to which share of the steps guidance is on; outside of it one branch is computed"
    )
    scales: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = Field(
        default=None, min_length=1, description="a scale of each step; a request for another scale moves all of them along"
    )
    pag: PagOptions | None = Field(
        default=None,
        description="one branch more, the prompt's with perturbed self-attention, in any mode; of Stable Diffusion and SDXL",
    )

    @property
    def pauses(self) -> bool:
        """Whether guidance is off at some steps."""
        return self.interval is not None or any(scale <= 1 for scale in self.scales or ())

    def shares(self, count: int) -> tuple[float, ...] | None:
        """What counts of the guidance at each of so many evaluations; None where all of it does everywhere.

        An interval begins and ends as `start` and `stop` of diffusers' guiders do. A scale of a step is a share of `scale`, both
        counted from 1, at which guidance is off.
        """
        if self.interval is not None:
            first, end = (int(share * count) for share in self.interval)
            return tuple(float(first <= index < end) for index in range(count))
        if self.scales is None or self.scale is None:
            return None
        return tuple((max(scale, 1.0) - 1) / (self.scale - 1) for scale in self.scales)

    @model_validator(mode="after")
    def _scaled(self) -> Self:
        if self.mode == "none" and self.scale is not None:
            raise ValueError(f"scale {self.scale} has no effect in mode 'none'; leave it out, or set mode: classifier_free")
        if self.mode != "none" and self.scale is None:
            raise ValueError(f"mode {self.mode!r} needs a scale, the default of the run-time input, such as scale: 7.5")
        if self.rescale and self.mode != "classifier_free":
            raise ValueError(f"rescale {self.rescale} has no effect in mode {self.mode!r}; leave it out")
        return self

    @model_validator(mode="after")
    def _stepped(self) -> Self:
        given = [name for name in ("interval", "scales") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError("has both an interval and a scale of each step; write the interval as scales of 1 outside of it")
        for name in given:
            paused = name == "interval" and self.pag is not None
            if self.mode != "classifier_free" and not paused:
                raise ValueError(f"{name} has no effect in mode {self.mode!r}; leave it out, or set mode: classifier_free")
            if self.mode == "classifier_free" and self.scale is not None and self.scale <= 1 and not paused:
                raise ValueError(f"{name} has no effect at scale {self.scale:g}, where guidance is off; raise the scale above 1")
        if self.interval and self.interval[0] >= self.interval[1]:
            right = f"sorted it is {sorted(self.interval)}" if self.interval[0] > self.interval[1] else "write [0.15, 0.85]"
            raise ValueError(f"interval {list(self.interval)} must rise, else guidance is never on; {right}")
        return self

    def problem(self, steps: int) -> str:
        """Why this cannot be over so many steps, and what can; else nothing."""
        if self.scales is not None and len(self.scales) != steps:
            return f"guidance has {len(self.scales)} scales, and there are {steps} steps; write one of each"
        if self.interval is None or any(self.shares(steps) or ()):
            return ""
        first = min(int(self.interval[0] * steps), steps - 1)
        near = [round(first / steps, 3), round((first + 1) / steps, 3)]
        return f"guidance.interval {list(self.interval)} holds none of {steps} steps; the nearest that holds one is {near}"


class CacheOptions(Frozen):
    """At which steps the denoiser runs whole; at the others its outermost layers run alone, on what the last whole call left."""

    every: int | None = Field(default=None, ge=2, description="whole at the first step and at every so many after it")
    whole: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        default=None, min_length=1, description="or the steps at which it is whole, counted from 1"
    )
    depth: int = Field(
        default=0,
        ge=0,
        description="layers, of a transformer blocks, that run at every step; 0 are the fewest; a search finds its own",
    )
    floor: Decibels | None = Field(
        default=None,
        description="or search steps and depth: the fewest multiply-adds with every image of checks.prompts so close to the "
        "uncached one, PSNR in dB",
    )
    budget: float | None = Field(
        default=None, gt=0, lt=1, description="or search: images closest to the uncached ones, with such a share of multiply-adds"
    )

    @property
    def searches(self) -> bool:
        """Whether steps and depth are yet to be found."""
        return self.floor is not None or self.budget is not None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(given is not None for given in (self.every, self.whole, self.floor, self.budget)) != 1:
            raise ValueError(
                "needs one of every, such as every: 3, of whole, the steps at which the network runs whole, and of floor and "
                "budget, such as floor: 30 dB or budget: 0.5, by which both are searched"
            )
        if self.searches and "depth" in self.model_fields_set:
            raise ValueError(f"depth {self.depth} is what the search finds; leave it out, or write the steps as whole: [1, …]")
        if self.whole and list(self.whole) != sorted(set(self.whole)):
            raise ValueError(f"whole: {list(self.whole)} must rise; sorted it is {sorted(set(self.whole))}")
        if self.whole and self.whole[0] != 1:
            raise ValueError(f"whole: begins with step {self.whole[0]}, and no call before it leaves anything; begin with 1")
        return self

    def problem(self, steps: int) -> str:
        """Why this cannot be over so many steps, and what can; else nothing."""
        if steps < FEWEST_CACHED:
            told = "since few steps have little in common"
            return f"cache pays from {FEWEST_CACHED} steps on, {told}, and steps has {steps}; leave it out"
        if self.whole and self.whole[-1] > steps:
            return f"cache.whole names step {self.whole[-1]}, and there are {steps}"
        if self.whole and len(self.whole) == steps:
            return "cache.whole names every step, so nothing is cached; leave it out"
        return ""


class SamplerOptions(Frozen):
    """diffusers' scheduler, compiled into tables."""

    scheduler: Text | None = Field(
        default=None, description="class name in diffusers, or such as DPM++ 2M Karras; null takes the model's own"
    )
    config: dict[str, Any] = Field(default_factory=dict, description="changes to the model's own scheduler config")
    steps: Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], AfterValidator(_distinct)] = Field(
        min_length=1, description="one table each; the first is the default"
    )
    step: dict[str, float] = Field(default_factory=dict, description="arguments of scheduler.step, such as eta")
    timesteps: Timesteps | None = Field(
        default=None,
        description="own time grid, instead of the scheduler's; a published one by name, such as ays-sdxl-10; or power: 1.5",
    )
    sigmas: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = Field(
        default=None, min_length=1, description="own noise levels, falling, instead of the scheduler's, as diffusers takes them"
    )
    guidance: GuidanceOptions = GuidanceOptions()
    cache: CacheOptions | None = Field(default=None, description="step caching: which steps run the whole denoiser")
    handover: bool = Field(
        default=False, description="tables of runs that stop or begin between two steps: denoising_end and denoising_start"
    )
    force: bool = Field(default=False, description="build although the model was made for another sampler; the bundle says so")

    @property
    def times(self) -> tuple[int, ...] | None:
        """The own time grid of the default number of steps, in numbers."""
        return self.times_over(self.steps[0])

    def times_over(self, steps: int) -> tuple[int, ...] | None:
        """The own time grid of so many steps, in numbers."""
        if isinstance(self.timesteps, timestep_lists.PowerLaw):
            return self.timesteps.times(steps)
        return timestep_lists.found(self.timesteps).times if isinstance(self.timesteps, str) else self.timesteps

    @property
    def opens(self) -> bool:
        """Whether the denoiser is to take all branches or some of them, at least the prompt's own."""
        return self.guidance.pauses or self.guidance.pag is not None or self.cache is not None

    @property
    def depth(self) -> int | None:
        """Of step caching; None without."""
        return None if self.cache is None else self.cache.depth

    def wholes(self, count: int, skipped: int = 0) -> tuple[bool, ...]:
        """Of so many evaluations, those after the `skipped`: whether the denoiser runs whole.

        The first of them does. So does the first with guidance after one without: what is kept then has one branch only.
        """
        shares, found = self.guidance.shares(count) or (1.0,) * count, list[bool]()
        last, held = skipped, False
        for index in range(skipped, count):
            due = self._due(index, last)
            found.append(index == skipped or due or (shares[index] > 0 and not held))
            if found[-1]:
                last, held = index, shares[index] > 0
        return tuple(found)

    def _due(self, index: int, last: int) -> bool:
        """Whether an evaluation is whole by the cache's own rule, the last whole one being `last`."""
        if self.cache is None:
            return True
        return index - last >= self.cache.every if self.cache.every else index + 1 in (self.cache.whole or ())

    def asked(self, steps: int | None = None) -> dict[str, Any]:
        """What a pipeline of diffusers is asked for, beside that many steps, by default the first, and the scale of guidance."""
        times = self.times_over(steps or self.steps[0])
        given: dict[str, Sequence[float] | None] = {"timesteps": times, "sigmas": self.sigmas}
        grids = {name: list(grid) for name, grid in given.items() if grid}
        pag = self.guidance.pag
        more = {"pag_scale": pag.scale, "pag_adaptive_scale": pag.adaptive} if pag else {}
        return {**grids, **more, **({"guidance_rescale": self.guidance.rescale} if self.guidance.rescale else {})}

    @model_validator(mode="after")
    def _gridded(self) -> Self:
        if self.times and self.sigmas:
            raise ValueError("has both timesteps and sigmas, which are the same grid in two units; keep one")
        power = self.timesteps if isinstance(self.timesteps, timestep_lists.PowerLaw) else None
        if problem := next(filter(None, map(power.problem, self.steps)), "") if power else "":
            raise ValueError(problem)
        times = None if power else self.times
        for name, given, each in (("timesteps", times, "times"), ("sigmas", self.sigmas, "noise levels")):
            # SCMScheduler's times, and most schedulers' sigmas, hold the arrival too.
            if given and any(steps not in {len(given), len(given) - 1} for steps in self.steps):
                count = len(given) - (name == "sigmas" and given[-1] == 0)
                raise ValueError(f"{name} has {len(given)} {each}, but steps is {list(self.steps)}; set steps: [{count}]")
        return self

    @model_validator(mode="after")
    def _stepped(self) -> Self:
        for steps in self.steps:
            if problem := self.guidance.problem(steps) or (self.cache and self.cache.problem(steps)):
                raise ValueError(problem)
            plain, needed = self.cache.whole if self.cache else None, self.wholes(steps)
            if plain and (more := [index for index, whole in enumerate(needed, 1) if whole and index not in plain]):
                told = "is the first with guidance after one without, of which one branch is kept"
                raise ValueError(f"cache.whole: step {more[0]} {told}; write {sorted({*plain, *more})}")
        if self.cache and not self.cache.every and len(self.steps) > 1:
            told = "cache.whole" if self.cache.whole else "a search of the cache"
            raise ValueError(f"{told} is of one number of steps, and steps is {list(self.steps)}; keep one")
        return self

    @model_validator(mode="after")
    def _spelled_out(self) -> Self:
        """Put the class and the config in the place of a name such as `DPM++ 2M Karras`; the recipe's own config wins."""
        found = aliases.expand(self.scheduler or "")
        return self.model_copy(update={"scheduler": found[0], "config": found[1] | self.config}) if found else self
