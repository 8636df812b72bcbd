"""Run the source pipeline once, as diffusers runs it, and keep its real inputs and outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engines.guidance import BRANCHES, USUAL
from engines.images import tiling
from exporter.part import DEEP, Case, divided
from exporter.reference.probe_pictures import probe_pictures
from exporter.reference.recording import Recording, Run, RunSource, Setting
from exporter.schedulers.loop import InjectedNoise

if TYPE_CHECKING:
    from engines.guidance import Guidance
    from engines.manifest import Tile
    from engines.signature import Signature
    from exporter.families import Family, Reference
    from exporter.recipe.sampling import CacheOptions
    from exporter.recipe.schema import Recipe

#: What is recorded with guidance where the recipe's own scale is one that is off, and users may ask for another.
_GUIDED = 3.0


def settings(
    recipe: Recipe, starts: Collection[str] = (), *, alike: bool = False, off: float | None = 1.0
) -> tuple[Setting, ...]:
    """Choose the runs: every step count at the typical size; one that is not square, with a batch; every one without guidance.

    Where the recipe's own scale switches guidance off, the last are with it. The one with a batch takes the fewest steps of the
    recipe. Where the source `starts` from an `image`, there is one more, and one that keeps a part of it where from a `mask`, of
    the fewest steps too. A recipe of one size, or of batch 1, has no run with a batch to offer. All prompts of the batch are the
    same where they must be `alike`, of one length. Guidance is `off` at this scale; None: at none.
    """
    shapes, sampler, prompts = recipe.shapes, recipe.sampler, recipe.checks.prompts
    scale = sampler.guidance.scale if sampler.guidance.mode != "none" else None
    height, width = shapes.height[1], shapes.width[1]
    # Where one branch is computed a negative prompt is read by nothing.
    negative = recipe.checks.negative_prompt if sampler.guidance.mode == "classifier_free" else None
    fewest = min(sampler.steps)
    chosen = [Setting(f"{steps} steps", prompts[:1], negative, steps, height, width, scale) for steps in sampler.steps]
    other = next((length for length in (shapes.width[2], shapes.width[0]) if length != height), width)
    batch = min(2, shapes.batch[2])
    if other != width or batch > 1:
        label = f"{other}×{height}, batch {batch}"
        pair = tuple(prompts[0 if alike else index % len(prompts)] for index in range(batch))
        chosen.append(Setting(label, pair, negative, fewest, height, other, scale))
    if sampler.guidance.mode == "classifier_free" and scale is not None and off is not None:
        word, other_scale = ("off", off) if scale > off else ("on", _GUIDED)
        chosen += [
            Setting(f"guidance {word}, {steps} steps", prompts[-1:], negative, steps, height, width, other_scale)
            for steps in sampler.steps
        ]
    if sampler.guidance.pag:
        fewest_guided = prompts[-1:], negative, fewest, height, width
        chosen.append(Setting("pag off", *fewest_guided, scale, pag_scale=0.0))
        if sampler.guidance.mode == "classifier_free":
            chosen.append(Setting("guidance and pag off", *fewest_guided, off, pag_scale=0.0))
    if recipe.prompts.chunks > 1 or recipe.prompts.weights:
        chosen.append(Setting("long and weighted", (_long(recipe),), negative, fewest, height, width, scale))
    given = prompts[-1:], negative, fewest, height, width, scale
    if "image" in starts:
        chosen.append(Setting("from an image", *given, strength=0.6 if fewest > 1 else 1.0))
    if "mask" in starts:
        chosen.append(Setting("within a mask", *given, strength=1.0, masked=True))
    return tuple(chosen)


def _long(recipe: Recipe) -> str:
    """A prompt of the recipe's that reaches into the last chunk; some words count more, and as compel writes them some less."""
    prompts, first = recipe.prompts, " ".join(recipe.checks.prompts)
    less = f"({first})0.6 " if prompts.downweighted else ""
    emphasis = {"a1111": f"({first}:1.3), ", "compel": f"({first})1.3 {less}", None: f"{first} "}[prompts.weights]
    words = 1 + 75 * (prompts.chunks - 1)  # each at least a token
    return emphasis + " ".join([first] * (1 + words // len(first.split())))


def opened(family: Family, recipe: Recipe) -> Reference:
    """The source as diffusers runs it, fp32, its decoder over the recipe's tiles."""
    reference = family.reference()
    for name, component in recipe.components.items():
        if component.tile:
            owner, method = reference.calls[name]
            setattr(owner, method, _in_tiles(getattr(owner, method), component.tile, family.factor))
    return reference


def noises(recipe: Recipe, number: int) -> np.random.Generator:
    """What the noise of so many a run is drawn from: a fresh generator that begins at the same place each time."""
    return np.random.Generator(np.random.Philox([recipe.checks.seed, number]))


def record(family: Family, recipe: Recipe, report: Callable[[str], None] = lambda _: None) -> Recording:
    """Run the source pipeline at every setting, in fp32, on noise from the recipe's seed.

    Raises:
        UnsupportedError: the scheduler draws noise by means that cannot be supplied from outside.

    """
    reference = opened(family, recipe)
    runs: list[Run] = []
    cases: dict[str, list[Case]] = {name: [] for name in family.roles}
    whole = [name for name, role in family.roles.items() if role != "shallow"]
    with torch.no_grad(), _ranges(reference, whole) as ranges:
        starts = family.starts if "encoder" in family.roles.values() else ()
        texts_of = (family.signature(name) for name, role in family.roles.items() if role == "text")
        read = {port.name for signature in texts_of for port in signature.inputs}
        off = next((scale.off for scale in family.guidance.scales if scale.name == USUAL), 1.0)
        for number, setting in enumerate(settings(recipe, starts, alike=_of_open_length(family), off=off)):
            report(setting.label)
            if not family.tokenizer_names:
                setting = replace(setting, prompts=("",) * len(setting.prompts), negative_prompt=None)  # noqa: PLW2901
            texts = setting.prompts, setting.negative_prompt
            pictures = _pictures(family, setting, np.random.Generator(np.random.Philox([recipe.checks.seed, number, 1])))
            own = {name: fed for name, fed in pictures.items() if read & family.inputs[name].taken(name).keys()}
            conditioning, ids = reference.encode(*texts, own), reference.tokenize(*texts, own)
            noise = noises(recipe, number)
            one = functools.partial(play, family, reference, setting, conditioning, pictures)
            if recipe.sampler.cache and not setting.strength:
                uncached = one(noises(recipe, number), None, cache=None).image
            else:
                uncached = None
            run = replace(one(noise, runs[0].image[0] if setting.strength else None), uncached=uncached)
            runs.append(run)
            numbers = {name: fed for name, fed in pictures.items() if not family.inputs[name].pictured}
            known = {**ids, **conditioning, **numbers, **reference.conditions(pictures, run.draws[0])}
            for name, role in family.roles.items():
                signature = family.signature(name)
                most = signature.lengths(signature.inputs[0].shape[0])[1]
                for case in _cases(role, signature, reference, run, known, noise, family.guidance):
                    cases[name] += divided(case, most)
    return Recording(tuple(runs), {name: tuple(found) for name, found in cases.items()}, dict(ranges))


def _of_open_length(family: Family) -> bool:
    """Whether texts are as long as they are, so that those of one batch must be equally long."""
    parts = (family.signature(name) for name, role in family.roles.items() if role == "text")
    return any({*part.dims} - {"batch", BRANCHES} for part in parts)


def _pictures(family: Family, setting: Setting, random: np.random.Generator) -> dict[str, np.ndarray]:
    """What one setting feeds."""
    cells = family.latent_shape(1, setting.height, setting.width)[2:]
    sides = {"latent_height": cells[0], "latent_width": cells[1]}
    made = probe_pictures(family.inputs, len(setting.prompts), sides, random)
    return {name: np.repeat(own[:1], len(own), axis=0) if name in family.shared_inputs else own for name, own in made.items()}


@dataclass
class _Tape:
    """What the hooks saw, in order."""

    times: list[float] = field(default_factory=list)
    model_inputs: list[np.ndarray] = field(default_factory=list)
    model_outputs: list[np.ndarray] = field(default_factory=list)
    draws: list[np.ndarray] = field(default_factory=list)


def play(
    family: Family,
    reference: Reference,
    setting: Setting,
    conditioning: Mapping[str, np.ndarray],
    pictures: Mapping[str, np.ndarray],
    noise: np.random.Generator,
    picture: np.ndarray | None,
    **asked: CacheOptions | None,
) -> Run:
    """Play one setting, from a picture (height, width, 3) where there is one, with hooks on denoiser and scheduler.

    `asked`: a `cache` that stands in for the recipe's, or None for none.
    """
    tape, scheduler = _Tape(), reference.pipeline.scheduler
    batch = len(setting.prompts)

    size = {"height": setting.height, "width": setting.width}
    shape = family.latent_shape(batch, **size)

    def draw(wanted: tuple[int, ...]) -> torch.Tensor:
        # Some pipelines keep an axis of one frame; anything else that is drawn is no latent, and shows where draws are joined.
        usual = [length for length in wanted if length > 1] == [length for length in shape if length > 1]
        tape.draws.append(noise.standard_normal(shape if usual else wanted, dtype=np.float32))
        return torch.from_numpy(tape.draws[-1].copy()).reshape(wanted)

    def kept(latent: torch.Tensor) -> np.ndarray:
        return reference.unpacked(latent.float(), shape).numpy().copy()

    @functools.wraps(scheduler.step)  # pipelines look at its arguments
    def step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - diffusers' own signature
        scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        at = torch.as_tensor(timestep).flatten()[0]  # some have one a picture, all of them alike
        scaled, told = family.driving.shown(scheduler, sample, scaled, at, len(tape.times))
        tape.model_inputs.append(kept(scaled))
        tape.times.append(told)
        tape.model_outputs.append(kept(model_output))
        with InjectedNoise(draw, type(scheduler).__name__):
            result = original(model_output, timestep, sample, *args, **kwargs | family.recipe.sampler.step)
        latents.append(result[0])
        return result

    def saw_latent(_pipeline: object, _index: int, _time: object, values: dict[str, Any]) -> dict[str, Any]:
        latents[-1] = values["latents"]  # of inpainting, with what is kept
        return {}

    latents: list[torch.Tensor] = []
    original, played, source = scheduler.step, reference.pipeline, None
    own: dict[str, Any] = size
    if picture is not None:
        source = _source(picture, masked=setting.masked)
        played, own = reference.from_image(source.pixels, source.anew, setting.strength, size)
    scheduler.step = step
    try:
        with InjectedNoise(draw, type(played).__name__):  # the encoder's noise, then the initial one
            image = reference.call(
                conditioning,
                setting.guidance_scale,
                pipeline=played,
                **own,
                num_inference_steps=setting.steps,
                callback_on_step_end=saw_latent,
                output_type="np",
                **({"pictures": pictures} if pictures else {}),
                **({} if setting.pag_scale is None else {"pag_scale": setting.pag_scale}),
                **({} if conditioning else {"batch_size": batch}),
                **asked,
            ).images
    finally:
        del scheduler.step
    draws = reference.reordered(tape.draws)
    if source is not None:
        before = sum(
            family.signature(name).port("noise") is not None for name, role in family.roles.items() if role == "condition"
        )
        source = replace(source, latent=reference.encode_image(source.pixels[None].astype(np.float32) / 255, draws[before]))
    return Run(
        setting,
        np.array(tape.times, dtype=np.float64),
        np.stack(tape.model_inputs),
        np.stack(tape.model_outputs),
        np.stack(draws),
        kept(latents[-1]),
        image.astype(np.float32),
        source,
        np.array(reference.scales) if reference.scales else None,
        _given(reference.features) if reference.features else None,
        inputs=pictures,
        pag_scales=np.array(reference.pag_scales) if reference.pag_scales else None,
    )


def _given(features: Sequence[torch.Tensor]) -> np.ndarray:
    """At which calls the deep feature is the one of the call before, bool (evaluations,)."""
    return np.array([index > 0 and feature is features[index - 1] for index, feature in enumerate(features)])


def _source(picture: np.ndarray, *, masked: bool) -> RunSource:
    """What a run starts from; with a mask, the right half is made anew. Its latent is not known yet."""
    pixels = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    if not masked:
        return RunSource(pixels, None, np.empty(0))
    height, width = pixels.shape[:2]
    anew = np.zeros((height, width), bool)
    anew[:, width // 2 :] = True
    return RunSource(pixels, anew, np.empty(0))


def _in_tiles(decode: Callable[..., Any], tile: Tile, factor: int) -> Callable[..., Any]:
    """A decoder of diffusers, played over tiles as the run time plays the engine; takes and gives what it does."""

    def play(latent: torch.Tensor, return_dict: bool = False, **_: Any) -> tuple[torch.Tensor]:  # noqa: FBT001, FBT002, ARG001, ANN401
        def one(piece: np.ndarray) -> np.ndarray:
            return decode(torch.from_numpy(piece), return_dict=False)[0].clamp(-1, 1).permute(0, 2, 3, 1).numpy()

        found = tiling.decoded(one, latent.numpy(), tile, (factor, factor))
        return (torch.from_numpy(found).permute(0, 3, 1, 2),)

    return play


def _steering(
    guidance: Guidance, signature: Signature, values: Mapping[str, np.ndarray], run: Run, index: int
) -> dict[str, np.ndarray]:
    """What the run time feeds for a call's guidance: scales (batch,), and the branches that they need, where those are open."""
    fed = guidance.fed(run.asked(index))
    taken = list(guidance.taken(fed)) if fed else [*range(guidance.branches)]
    texts = {port.name for port in signature.inputs if port.shape[1:2] == (BRANCHES,) and port.name != DEEP}
    branches = {name: values[name][:, taken] for name in texts}
    # The source computes all branches at every step, and all that are on in the run.
    left = {port.name for port in (*signature.inputs, *signature.outputs) if port.name == DEEP and port.shape[1] == BRANCHES}
    branches |= {name: values[name][:, -len(taken) :] for name in left if name in values}
    return {**branches, **{name: np.full(len(run.setting.prompts), scale, np.float32) for name, scale in fed.items()}}


def _cases(
    role: str,
    signature: Signature,
    reference: Reference,
    run: Run,
    values: Mapping[str, np.ndarray],
    noise: np.random.Generator,
    guidance: Guidance,
) -> Iterator[Case]:
    """The calls of one part that a run contains, under the part's contract."""
    setting = run.setting
    where = f"{setting.label}, {setting.width}×{setting.height}"

    def pick(found: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        sides = signature.inputs, signature.outputs
        inputs, outputs = ({port.name: found[port.name] for port in side if port.name in found} for side in sides)
        return inputs, outputs

    if role in {"denoiser", "shallow"}:
        batch, calls = len(setting.prompts), run.calls(shallow=role == "shallow")
        for index in sorted({calls[0], calls[(len(calls) - 1) // 2], calls[-1]} if calls else ()):
            held = {**values, **_left(role, signature, reference.features[index : index + 1], batch)}
            known = {
                **held,
                **_steering(guidance, signature, held, run, index),
                "latent": run.model_inputs[index],
                "timestep": np.full(batch, run.times[index], np.float32),
                "model_output": run.model_outputs[index],
            }
            yield Case(f"{where}, step {index + 1} of {len(run.times)}", *pick(known))
    elif role == "decoder":
        most = [signature.lengths(length)[1] for length in signature.inputs[0].shape[2:]]
        latent = run.latent[:, :, : most[0], : most[1]]  # of tiles, the first
        image = run.image if latent.shape == run.latent.shape else reference.decode(latent)
        yield Case(where, *pick({"latent": latent, "image": image}))
    elif role == "encoder":
        eps = noise.standard_normal(run.latent.shape, dtype=np.float32)
        latent = reference.encode_image(run.image, eps)
        yield Case(where, *pick({"image": run.image, "noise": eps, "latent": latent}))
    else:
        yield Case(where, *pick(values))


def _left(role: str, signature: Signature, features: Sequence[torch.Tensor], batch: int) -> dict[str, np.ndarray]:
    """The deep feature of a call by its port, (batch, branches, …), of diffusers' with all pictures of a branch after each other.

    Where the source computed the prompt's own branch alone and the part computes all, none of which but that counts, a shallow
    part is given it for all of them, and what a whole one leaves is not compared.
    """
    if not features:
        return {}
    found = features[0].unflatten(0, (-1, batch)).transpose(0, 1).numpy().copy()
    port = signature.port(DEEP)
    branches = port.shape[1] if port else None
    if not isinstance(branches, int) or branches == found.shape[1]:
        return {DEEP: found}
    return {DEEP: np.repeat(found, branches, axis=1)} if role == "shallow" else {}


@contextmanager
def _ranges(reference: Reference, parts: Sequence[str]) -> Iterator[dict[str, float]]:
    """Watch every module of every component for its largest finite or infinite output; NaN counts as infinite.

    Of parts without a network, such as a decoder that only scales, it is 0.
    """
    largest = dict.fromkeys(parts, 0.0)
    hooks = []

    def watch(name: str) -> Callable[..., None]:
        def saw(_module: torch.nn.Module, _args: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.is_floating_point() and not output.is_meta:
                peak = float(output.abs().amax()) if output.numel() else 0.0
                largest[name] = max(largest.get(name, 0.0), peak if peak == peak else float("inf"))  # noqa: PLR0124 - NaN

        return saw

    for name, component in reference.components.items():
        hooks += [module.register_forward_hook(watch(name)) for module in component.modules()]
    try:
        yield largest
    finally:
        for hook in hooks:
            hook.remove()
