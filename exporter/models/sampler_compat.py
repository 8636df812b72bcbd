"""What a model was distilled for, and whether a recipe's sampler is that: the wrong pair is refused and the right one named.

The knowledge is data, `pairings.json`, with its sources. What surely breaks is refused; what is merely unusual is noted.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import TypeAdapter

from engines import plugins
from engines.strict import Frozen
from exporter.models.statements import Statement
from exporter.recipe.purpose import ModelPurpose
from exporter.recipe.timestep_lists import TRAINED

if TYPE_CHECKING:
    from exporter.models.checkpoint import Checkpoint
    from exporter.recipe.schema import Recipe

FILE = Path(__file__).parent / "pairings.json"
#: A scheduler that only models distilled for it can use.
_CONSISTENCY = "LCMScheduler"
#: How the names of schedulers begin that call a network as EDM does (Karras et al. 2022).
_EDM = "EDM"
_NOT_CONSISTENT = (
    "nothing says that this is one: the network has no guidance input (unet.time_cond_proj_dim); "
    "take another scheduler, add an LCM LoRA to model.loras, or say model.made_for: lcm_lora"
)


class Steering(Frozen):
    """Guidance as the model was distilled: the mode to write, and the largest scale of classifier_free (null: any)."""

    mode: Literal["none", "classifier_free", "embedded"]
    most: float | None = None


class Steps(Frozen):
    """Numbers of steps that a model was distilled for; another is refused where `strict`, else noted."""

    least: int
    most: int
    strict: bool = False


class Pairing(Frozen):
    """One way of distilling, and the sampler that belongs to it.

    Attributes:
        about: in words.
        hub: ids of models and LoRAs on the hub.
        architectures: names of ours that have no other use.
        names: what the name of such a model or LoRA looks like; searched without regard to case.
        named_steps: finds the number of steps in such a name.
        schedulers: classes that work; null where any solver does.
        spacing: of the timesteps, where it matters.
        write: what to write into the recipe's sampler.
        sources: where this was read.

    """

    about: str
    hub: tuple[str, ...]
    architectures: tuple[str, ...] = ()
    names: str | None = None
    named_steps: str | None = None
    schedulers: tuple[str, ...] | None = None
    spacing: Literal["trailing"] | None = None
    guidance: Steering
    steps: Steps | None = None
    write: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """What a recipe's pair of model and sampler is: problems (with dotted paths) refuse it, notes go into the bundle."""

    made: ModelPurpose
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@functools.cache
def pairings() -> Mapping[str, Pairing]:
    """Every kind, the most particular first."""
    return TypeAdapter(dict[str, Pairing]).validate_json(FILE.read_bytes())


def judge(recipe: Recipe, checkpoint: Checkpoint) -> Judgement:
    """Compare the recipe's sampler with what the model was made for; `sampler.force` turns problems into notes."""
    made = made_for(recipe, checkpoint)
    problems = [*_schedule_problems(recipe, checkpoint, made), *_guidance_problems(recipe, made), *_zero_snr(recipe, checkpoint)]
    problems += [*_rival_loras(recipe), *_predicts(recipe, checkpoint, made), *_times(recipe, checkpoint, made)]
    problems += [*_stated(recipe, checkpoint), *_other_process(recipe, checkpoint), *_other_schedule(recipe, checkpoint)]
    notes = list(_other_mode(recipe, made)) or list(_off(recipe))
    (problems if _strict(made) else notes).extend(_other_steps(recipe, made))
    unusual = [f"unusual: {note}" for note in notes]
    if recipe.sampler.force:
        return Judgement(made, (), (*(f"forced: {problem}" for problem in problems), *unusual))
    right = f"; write {pairings()[made.kind].write}" if made.kind else ""
    return Judgement(made, tuple(f"{problem}{right}; or sampler.force: true" for problem in problems), tuple(unusual))


def made_for(recipe: Recipe, checkpoint: Checkpoint) -> ModelPurpose:
    """Tell by the recipe's passes and the recipe itself, then its LoRAs, then the names and fields in the model's configs."""
    if taught := made_by_passes(recipe):
        return taught
    if recipe.model.made_for:
        return ModelPurpose(recipe.model.made_for, "model.made_for")
    titles = [(f"model.loras[{index}]", each.title) for index, each in enumerate(checkpoint.loras)]
    known = [*_recognised([*lora_names(recipe), *titles]), *_recognised(_names(recipe, checkpoint))]
    if known:
        return known[0]
    unet = checkpoint.configs.get("unet", {})
    # Of an upscaler whose time is embedded by random waves it is what else steers, and no guidance.
    if unet.get("time_cond_proj_dim") is not None and unet.get("time_embedding_type") != "fourier":
        return ModelPurpose("lcm", "unet.time_cond_proj_dim")
    return ModelPurpose()


def made_by_passes(recipe: Recipe) -> ModelPurpose | None:
    """What the recipe's last pass that makes a denoiser for a sampler of its own makes of it."""
    steps = [pair for name in ("unet", "transformer") if name in recipe.components for pair in recipe.components[name].passes]
    made = [plugins.load("passes", name).model_validate(options).purpose for step in steps for name, options in step.items()]
    return next((each for each in reversed(made) if each), None)


def made_by_loras(recipe: Recipe) -> ModelPurpose:
    """Tell by the names of a recipe's LoRAs alone, without their files."""
    return next(iter(_recognised(lora_names(recipe))), ModelPurpose())


def lora_names(recipe: Recipe) -> list[tuple[str, str]]:
    """Where the names of a recipe's LoRAs stand, and they."""
    return [
        (f"model.loras[{index}]", name)
        for index, each in enumerate(recipe.model.loras)
        for name in (each.weight_name or "", each.source)
    ]


def _recognised(names: Iterable[tuple[str, str]]) -> list[ModelPurpose]:
    found = []
    for place, name in names:
        for kind, pairing in pairings().items():
            if name in (*pairing.hub, *pairing.architectures) or _found(pairing.names, name):
                steps = _found(pairing.named_steps, name)
                found.append(ModelPurpose(kind, f"{place} {name!r}", int(steps[1]) if steps else None))
                break
    return found


def _names(recipe: Recipe, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Where a name stands under which the model, or what it was made from, is known; and the name."""
    yield "model.source", recipe.model.source
    for component, config in checkpoint.configs.items():
        if isinstance(name := config.get("_name_or_path"), str) and name:
            yield f"{component}'s _name_or_path", name


def _rival_loras(recipe: Recipe) -> Iterator[str]:
    first, *others = _recognised(lora_names(recipe)) or [ModelPurpose()]
    for other in others:
        if other.kind != first.kind:
            one, two = (f"{made.told_by} is {pairings()[made.kind].about}" for made in (first, other))
            yield f"model.loras: {one}, and {two}; keep one of them"


def _setting(recipe: Recipe, checkpoint: Checkpoint, key: str) -> Any:  # noqa: ANN401 - whatever a config holds
    return {**checkpoint.configs.get("scheduler", {}), **recipe.sampler.config}.get(key)


def _gridded(recipe: Recipe) -> bool:
    return bool(recipe.sampler.timesteps or recipe.sampler.sigmas)


def _where(recipe: Recipe, key: str) -> str:
    return f"sampler.config.{key}" if key in recipe.sampler.config else "sampler.config"


def _schedule_problems(recipe: Recipe, checkpoint: Checkpoint, made: ModelPurpose) -> Iterator[str]:
    name = recipe.sampler.scheduler or str(checkpoint.configs.get("scheduler", {}).get("_class_name"))
    allowed = pairings()[made.kind].schedulers if made.kind else None
    if allowed and name not in allowed:
        yield f"sampler.scheduler: {name}, but {_model(made)}, and needs {' or '.join(allowed)}"
    elif name == _CONSISTENCY and not allowed and made.kind:
        yield f"sampler.scheduler: {name} is for latent consistency models, but {_model(made)}"
    elif name == _CONSISTENCY and not allowed:
        yield f"sampler.scheduler: {name} is for latent consistency models, and {_NOT_CONSISTENT}"
    spacing = pairings()[made.kind].spacing if made.kind else None
    found = _setting(recipe, checkpoint, "timestep_spacing")
    if spacing and found != spacing and not _gridded(recipe):
        own = "" if "timestep_spacing" in recipe.sampler.config else ", from the model's own scheduler config"
        shown = f"{found!r}{own}" if found else "the scheduler's default"
        yield f"{_where(recipe, 'timestep_spacing')}: timestep_spacing is {shown}, but {_model(made)}, and needs {spacing!r}"


def _guidance_problems(recipe: Recipe, made: ModelPurpose) -> Iterator[str]:
    guidance = recipe.sampler.guidance
    most = pairings()[made.kind].guidance.most if made.kind else None
    if guidance.mode == "classifier_free" and guidance.scale is not None and most is not None and guidance.scale > most:
        takes = "and takes no guidance" if most == 1 else f"and takes a scale of at most {most:g}"
        yield f"sampler.guidance.scale: {guidance.scale:g}, but {_model(made)}, {takes}"


def _zero_snr(recipe: Recipe, checkpoint: Checkpoint) -> Iterator[str]:
    """A schedule that ends at zero signal has nothing to divide by under epsilon, and is not reached unless it is trailing."""
    if not _setting(recipe, checkpoint, "rescale_betas_zero_snr"):
        return
    where = _where(recipe, "rescale_betas_zero_snr")
    if _setting(recipe, checkpoint, "prediction_type") in (None, "epsilon"):  # it may be of any type
        yield f"{where}: rescale_betas_zero_snr needs prediction_type: v_prediction, since noise says nothing at zero signal"
    if _setting(recipe, checkpoint, "timestep_spacing") != "trailing" and not _gridded(recipe):
        yield f"{where}: rescale_betas_zero_snr needs timestep_spacing: trailing, or the steps do not begin at zero signal"


def process_of(name: str, config: Mapping[str, Any]) -> str:
    """The kind of noise process that a scheduler undoes, in words: a model trained on one is noise under another."""
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction" or "FlowMatch" in name:
        return "flow matching"
    if name.startswith(("EDM", "Cosine")) or config.get("timestep_type") == "continuous":
        return "EDM"
    return {"SCMScheduler": "TrigFlow", "CMStochasticIterativeScheduler": "consistency"}.get(name, "diffusion")


def _other_process(recipe: Recipe, checkpoint: Checkpoint) -> Iterator[str]:
    """A network is called with the inputs and times of the noise process that it was trained on, and with no other's."""
    own = checkpoint.configs.get("scheduler", {})
    theirs = str(own.get("_class_name"))
    name, asked = recipe.sampler.scheduler or theirs, {**own, **recipe.sampler.config}
    needed, found = process_of(theirs, own), process_of(name, asked)
    where = "sampler.scheduler" if name != theirs else "sampler.config"
    if needed != found:
        by = next((f" ({each.by})" for each in checkpoint.statements if each.field == "_class_name"), "")
        shift = own.get("shift", own.get("flow_shift", 1.0))
        flow = f"{{prediction_type: flow_prediction, use_flow_sigmas: true, flow_shift: {shift}}}"
        right = {
            "flow matching": f"take UniPCMultistepScheduler with config: {flow}",
            "EDM": "take EDMEulerScheduler or EDMDPMSolverMultistepScheduler, or leave the line out",
        }.get(needed, f"take one for that, as {theirs} is")
        yield f"{where}: {name} undoes {found}, but the model's own {theirs} says that it was trained by {needed}{by}; {right}"
    elif theirs.startswith(_EDM) and not name.startswith(_EDM) and not _plays_edm(name, own, asked):
        how = "with v_prediction, sigma_data 1 and karras, exponential or beta sigmas"
        yield f"{where}: {name} plays models of EDM's form only {how}; take {theirs}"


def _plays_edm(name: str, own: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether a scheduler that is not EDM's calls a network of EDM's form as one of EDM's would."""
    unit = own.get("sigma_data", 0.5) == 1.0 and asked.get("prediction_type") == "v_prediction"
    spread = any(asked.get(f"use_{kind}_sigmas") for kind in ("karras", "exponential", "beta"))
    return unit and spread and name == "EulerDiscreteScheduler"


def _predicts(recipe: Recipe, checkpoint: Checkpoint, made: ModelPurpose) -> Iterator[str]:
    """The sampler must read what the network says as a pass has taught it to."""
    found = _setting(recipe, checkpoint, "prediction_type") or "epsilon"
    if made.prediction and made.prediction != found:
        where = _where(recipe, "prediction_type")
        yield f"{where}: prediction_type is {found!r}, but {made.told_by} makes it {made.prediction!r}; write that here"


def _stated(recipe: Recipe, checkpoint: Checkpoint) -> Iterator[str]:
    """A recipe must not say another thing than a single file does; where the file says two things, the recipe decides."""
    told: dict[str, list[Statement]] = {}
    for each in checkpoint.statements:
        told.setdefault(each.field, []).append(each)
    for field, statements in told.items():
        given, values = recipe.sampler.config.get(field), [each.value for each in statements]
        says = " and ".join(each.by if each.value is None else f"{each.value!r} ({each.by})" for each in statements)
        if statements[0].component != "scheduler":
            if None in values:
                yield f"model.source: {statements[0].by} holds no numbers for {field}; take a whole file"
        elif field in recipe.sampler.config and given not in values and None not in values:
            yield f"sampler.config.{field}: {given!r}, but the model's file says {says}; leave the line out"
        elif field not in recipe.sampler.config and None in values:
            lacks = "no number that can be one" if field.startswith("sigma_") else "what diffusers has no word for"
            yield f"sampler.config: the model's file says of {field} {lacks}: {says}; write it here"
        elif field not in recipe.sampler.config and any(value != values[0] for value in values):
            yield f"sampler.config: the model's file says of {field} both {says}; write here which it is"


def _times(recipe: Recipe, checkpoint: Checkpoint, made: ModelPurpose) -> Iterator[str]:
    """A network that was taught leaps from times of its own is called at no other."""
    if made.starts:
        steps, places = made.starts
        grid = trailing(_setting(recipe, checkpoint, "num_train_timesteps") or 1000, steps)
        if recipe.sampler.times != (times := tuple(grid[place] for place in places)):
            found = list(recipe.sampler.times) if recipe.sampler.times else "null"
            yield f"sampler.timesteps: {found}, but {made.told_by} teaches leaps from {list(times)}; write that here"


def _other_schedule(recipe: Recipe, checkpoint: Checkpoint) -> Iterator[str]:
    """Lists that go by a name, and power laws, count on the usual number of training steps."""
    own, asked = _setting(recipe, checkpoint, "num_train_timesteps") or TRAINED, recipe.sampler.timesteps
    if own != TRAINED and asked is not None and not isinstance(asked, tuple):
        yield f"sampler.timesteps: counts on a schedule of {TRAINED} steps, and this model's has {own}; write numbers"


def trailing(count: int, steps: int) -> list[int]:
    """Times of a grid with trailing spacing on a schedule of `count`, the last first, as diffusers rounds them."""
    return [int(time) - 1 for time in np.round(np.arange(count, 0, -count / steps))[:steps]]


def _strict(made: ModelPurpose) -> bool:
    steps = pairings()[made.kind].steps if made.kind else None
    return steps is not None and steps.strict


def _other_steps(recipe: Recipe, made: ModelPurpose) -> Iterator[str]:
    usual = pairings()[made.kind].steps if made.kind else None
    if usual is None:
        return
    least, most = (made.steps, made.steps) if made.steps else (usual.least, usual.most)
    counted = f"{least} to {most} steps" if most > least else f"{least} step{'s' * (least > 1)}"
    for steps in recipe.sampler.steps:
        if not least <= steps <= most:
            yield f"sampler.steps: {steps}, but {_model(made)}, made for {counted}"


def _other_mode(recipe: Recipe, made: ModelPurpose) -> Iterator[str]:
    """Another mode than the usual; a scale beyond the limit is a problem of its own, and one within it is as it should be."""
    if not made.kind or recipe.sampler.guidance.mode == (usual := pairings()[made.kind].guidance).mode:
        return
    mode, scale = recipe.sampler.guidance.mode, recipe.sampler.guidance.scale or 0.0
    if mode != "classifier_free" or (scale <= 1 and usual.most == 1):
        yield f"sampler.guidance.mode: {mode}, but {_model(made)}, whose mode is {usual.mode}"


def _off(recipe: Recipe) -> Iterator[str]:
    guidance = recipe.sampler.guidance
    if guidance.mode == "classifier_free" and guidance.scale is not None and guidance.scale <= 1:
        yield (
            f"sampler.guidance.scale: {guidance.scale:g}, and at 1 and below guidance is off, as in diffusers; mode: none draws "
            "the same pictures, and asks the network for one branch instead of two"
        )


def _found(pattern: str | None, name: str) -> re.Match[str] | None:
    return re.search(pattern, name, re.IGNORECASE) if pattern else None


def _model(made: ModelPurpose) -> str:
    return f"this is {pairings()[made.kind].about}, as {made.told_by} says"
