"""Run the source pipeline once, as diffusers runs it, and keep its real inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch
from PIL import Image

from engines import tiles
from exporter.loop import Dice
from exporter.recording import Case, Recording, Run, Setting, Source

if TYPE_CHECKING:
    from engines.manifest import Tile
    from exporter.families import Family
    from exporter.recipe import Recipe

#: What is recorded with guidance where the recipe's own scale is one that is off, and users may ask for another.
_GUIDED = 3.0


def settings(recipe: Recipe) -> tuple[Setting, ...]:
    """Choose the runs: every step count at the typical size; one that is not square, with a batch; every one without guidance.

    Where the recipe's own scale switches guidance off, the last are with it. The one with a batch takes the fewest steps of the
    recipe. With an encoder, there is one more from an image and one that keeps a part of it, of the fewest steps too. A recipe of
    one size, or of batch 1, has no run with a batch to offer.
    """
    shapes, sampler, prompts = recipe.shapes, recipe.sampler, recipe.checks.prompts
    scale = sampler.guidance.scale if sampler.guidance.mode != "none" else None
    height, width = shapes.height[1], shapes.width[1]
    negative, fewest = recipe.checks.negative_prompt, min(sampler.steps)
    chosen = [Setting(f"{steps} steps", prompts[:1], negative, steps, height, width, scale) for steps in sampler.steps]
    other = next((length for length in (shapes.width[2], shapes.width[0]) if length != height), width)
    batch = min(2, shapes.batch[2])
    if other != width or batch > 1:
        label = f"{other}×{height}, batch {batch}"
        pair = tuple(prompts[index % len(prompts)] for index in range(batch))
        chosen.append(Setting(label, pair, negative, fewest, height, other, scale))
    if sampler.guidance.mode == "classifier_free" and scale is not None:
        word, other_scale = ("off", 1.0) if scale > 1 else ("on", _GUIDED)
        chosen += [
            Setting(f"guidance {word}, {steps} steps", prompts[-1:], negative, steps, height, width, other_scale)
            for steps in sampler.steps
        ]
    if "vae_encoder" in recipe.components:
        given = prompts[-1:], negative, fewest, height, width, scale
        chosen.append(Setting("from an image", *given, strength=0.6 if fewest > 1 else 1.0))
        chosen.append(Setting("within a mask", *given, strength=1.0, masked=True))
    return tuple(chosen)


def record(family: Family, recipe: Recipe, report: Callable[[str], None] = lambda _: None) -> Recording:
    """Run the source pipeline at every setting, in fp32, on noise from the recipe's seed.

    Raises:
        UnsupportedError: the scheduler draws noise by means that cannot be supplied from outside.

    """
    pipeline = family.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    if "vae_decoder" in recipe.components and (tile := recipe.components["vae_decoder"].tile):
        pipeline.vae.decode = _in_tiles(pipeline.vae.decode, tile, pipeline.vae_scale_factor)
    runs: list[Run] = []
    cases: dict[str, list[Case]] = {name: [] for name in family.roles}
    with torch.no_grad(), _ranges(family, pipeline) as ranges:
        for number, setting in enumerate(settings(recipe)):
            report(setting.label)
            conditioning, ids = _encode(family, pipeline, setting), _ids(family, pipeline, setting)
            noise = np.random.Generator(np.random.Philox([recipe.checks.seed, number]))
            run = _run(family, pipeline, recipe, setting, conditioning, noise, runs[0].image[0] if setting.strength else None)
            runs.append(run)
            for name, role in family.roles.items():
                cases[name] += _cases(role, family, pipeline, name, run, {**ids, **conditioning}, noise)
    return Recording(tuple(runs), {name: tuple(found) for name, found in cases.items()}, dict(ranges))


@dataclass
class _Tape:
    """What the hooks saw, in order."""

    times: list[float] = field(default_factory=list)
    model_inputs: list[np.ndarray] = field(default_factory=list)
    model_outputs: list[np.ndarray] = field(default_factory=list)
    draws: list[np.ndarray] = field(default_factory=list)


def _run(
    family: Family,
    pipeline: Any,  # noqa: ANN401 - a diffusers pipeline
    recipe: Recipe,
    setting: Setting,
    conditioning: Mapping[str, np.ndarray],
    noise: np.random.Generator,
    picture: np.ndarray | None,
) -> Run:
    """Play one setting, from a picture (height, width, 3) where there is one, with hooks on denoiser and scheduler."""
    tape, scheduler = _Tape(), pipeline.scheduler
    batch = len(setting.prompts)
    latent = next(port for port in family.signature("unet").inputs if port.name == "latent")
    factor = pipeline.vae_scale_factor
    shape = (batch, int(latent.shape[1]), setting.height // factor, setting.width // factor)

    def draw(wanted: tuple[int, ...]) -> torch.Tensor:
        tape.draws.append(noise.standard_normal(wanted, dtype=np.float32))
        return torch.from_numpy(tape.draws[-1].copy())

    def saw_input(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample, time = (*args, kwargs.get("sample"), kwargs.get("timestep"))[:2]
        # With guidance on, diffusers runs both branches on the same latent in one batch.
        tape.model_inputs.append(sample[:batch].float().numpy().copy())
        tape.times.append(float(torch.as_tensor(time).flatten()[0]))

    def step(model_output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - diffusers' own signature
        tape.model_outputs.append(model_output.float().numpy().copy())
        with Dice(draw):
            return original(model_output, *args, **kwargs | recipe.sampler.step)

    def saw_latent(_pipeline: object, _index: int, _time: object, values: dict[str, Any]) -> dict[str, Any]:
        latents.append(values["latents"])
        return {}

    def prepare(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - diffusers' own signature
        with Dice(draw):  # the encoder's noise, then the initial one
            return prepared(*args, **kwargs)

    latents: list[torch.Tensor] = []
    original, played, source = scheduler.step, pipeline, None
    own: dict[str, Any] = {"height": setting.height, "width": setting.width}
    if picture is None:
        own["latents"] = draw(shape)
    else:
        played, own, source = _from_picture(pipeline, setting, picture)
    prepared, played.prepare_latents = played.prepare_latents, prepare
    hook = pipeline.unet.register_forward_pre_hook(saw_input, with_kwargs=True)
    scheduler.step = step
    try:
        image = played(
            **_embeds(family, setting, conditioning),
            **({"timesteps": list(recipe.sampler.timesteps)} if recipe.sampler.timesteps else {}),
            **own,
            num_inference_steps=setting.steps,
            # diffusers switches guidance off at 1 and below; a model without guidance runs like that.
            guidance_scale=1.0 if setting.guidance_scale is None else setting.guidance_scale,
            callback_on_step_end=saw_latent,
            output_type="np",
        ).images
    finally:
        del scheduler.step, played.prepare_latents
        hook.remove()
    if source is not None:
        source = replace(source, latent=_latent(pipeline, source.pixels[None].astype(np.float32) / 255, tape.draws[0]))
    return Run(
        setting,
        np.array(tape.times, dtype=np.float64),
        np.stack(tape.model_inputs),
        np.stack(tape.model_outputs),
        np.stack(tape.draws),
        latents[-1].float().numpy(),
        image.astype(np.float32),
        source,
    )


def _from_picture(pipeline: Any, setting: Setting, picture: np.ndarray) -> tuple[Any, dict[str, Any], Source]:  # noqa: ANN401 - diffusers pipelines
    """The pipeline of diffusers that plays the same networks from a picture, and its arguments; the latent is not yet known.

    With a mask, the right half is made anew.
    """
    # Its scheduler is set afterwards, as in `family.pipeline`; and it would tell of casts to float32 that change nothing here.
    diffusers.utils.logging.set_verbosity_error()
    kind = diffusers.AutoPipelineForInpainting if setting.masked else diffusers.AutoPipelineForImage2Image
    played = kind.from_pipe(pipeline, scheduler=None)
    played.scheduler = pipeline.scheduler
    played.set_progress_bar_config(disable=True)
    pixels = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    own: dict[str, Any] = {"image": Image.fromarray(pixels, "RGB"), "strength": setting.strength}
    if not setting.masked:
        return played, own, Source(pixels, None, np.empty(0))
    anew = np.zeros(pixels.shape[:2], bool)
    anew[:, anew.shape[1] // 2 :] = True
    own["mask_image"] = Image.fromarray(anew.astype(np.uint8) * 255, "L")
    # Only UNets made for inpainting see the masked image; given, it is not encoded, which would draw.
    own |= {"masked_image_latents": torch.zeros(1, 4, 1, 1), "height": setting.height, "width": setting.width}
    return played, own, Source(pixels, anew, np.empty(0))


def _ids(family: Family, pipeline: Any, setting: Setting) -> dict[str, np.ndarray]:  # noqa: ANN401 - a diffusers pipeline
    """Token ids as the source's own tokenizers make them, (batch, branches, length), by input port."""
    found = {}
    for tower, name in family.towers.items():
        (port,) = family.signature(tower).inputs
        texts = [text for prompt in setting.prompts for text in (setting.negative_prompt or "", prompt)[-int(port.shape[1]) :]]
        rows = getattr(pipeline, name)(texts, padding="max_length", max_length=port.shape[2], truncation=True)["input_ids"]
        found[port.name] = np.array(rows, dtype=np.int64).reshape(len(setting.prompts), *map(int, port.shape[1:]))
    return found


def _encode(family: Family, pipeline: Any, setting: Setting) -> dict[str, np.ndarray]:  # noqa: ANN401 - a diffusers pipeline
    """Conditioning as the source's `encode_prompt` makes it, (batch, branches, …), by port.

    diffusers joins the hidden states of several towers along their channels; here each tower has its own port.
    """
    ports = [port for tower in family.towers for port in family.signature(tower).outputs]
    branches = int(ports[0].shape[1])
    negative = {} if setting.negative_prompt is None else {"negative_prompt": [setting.negative_prompt] * len(setting.prompts)}
    found = pipeline.encode_prompt(
        prompt=list(setting.prompts), device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=branches == 2, **negative
    )
    # (positive, negative) states, then of SDXL the same of the pooled ones.
    stacks = [torch.stack([*found[index : index + 2]][::-1][-branches:], dim=1).float() for index in range(0, len(found), 2)]
    states = [port for port in ports if len(port.shape) == 4]
    pooled = [port for port in ports if len(port.shape) == 3]
    pieces = stacks[0].split([int(port.shape[-1]) for port in states], dim=-1)
    tensors = [*zip(states, pieces, strict=True), *zip(pooled, stacks[1:], strict=True)]
    return {port.name: tensor.numpy().copy() for port, tensor in tensors}


def _embeds(family: Family, setting: Setting, conditioning: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The arguments with which a diffusers pipeline takes what `encode_prompt` returned."""
    ports = [port for tower in family.towers for port in family.signature(tower).outputs]
    states = np.concatenate([conditioning[port.name] for port in ports if len(port.shape) == 4], axis=-1)
    pooled = [conditioning[port.name] for port in ports if len(port.shape) == 3]
    named = {"prompt_embeds": states, **({"pooled_prompt_embeds": pooled[0]} if pooled else {})}
    arguments = {name: torch.from_numpy(array[:, -1].copy()) for name, array in named.items()}
    if states.shape[1] == 2 and (setting.guidance_scale or 0.0) > 1:
        arguments |= {f"negative_{name}": torch.from_numpy(array[:, 0].copy()) for name, array in named.items()}
    return arguments


def _latent(pipeline: Any, image: np.ndarray, noise: np.ndarray) -> np.ndarray:  # noqa: ANN401 - a diffusers pipeline
    """What the source's VAE encoder makes of pictures, with the noise given, scaled as the denoiser takes it."""
    vae = pipeline.vae
    found = vae.encode(torch.from_numpy(image * 2 - 1).permute(0, 3, 1, 2))
    if not hasattr(found, "latent_dist"):
        return (found.latents * vae.config.scaling_factor).numpy()
    latent = found.latent_dist.mean + found.latent_dist.std * torch.from_numpy(noise)
    mean, std = (getattr(vae.config, f"latents_{name}", None) for name in ("mean", "std"))
    if mean is not None and std is not None:
        latent = (latent - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
    return (latent * vae.config.scaling_factor).numpy()


def _in_tiles(decode: Callable[..., Any], tile: Tile, factor: int) -> Callable[..., Any]:
    """A decoder of diffusers, played over tiles as the run time plays the engine; takes and gives what it does."""

    def play(latent: torch.Tensor, return_dict: bool = False, **_: Any) -> tuple[torch.Tensor]:  # noqa: FBT001, FBT002, ARG001, ANN401
        def one(piece: np.ndarray) -> np.ndarray:
            return decode(torch.from_numpy(piece), return_dict=False)[0].clamp(-1, 1).permute(0, 2, 3, 1).numpy()

        found = tiles.decoded(one, latent.numpy(), tile, (factor, factor))
        return (torch.from_numpy(found).permute(0, 3, 1, 2),)

    return play


def _image(pipeline: Any, latent: np.ndarray) -> np.ndarray:  # noqa: ANN401 - a diffusers pipeline
    """What the source's decoder makes of a latent, as its pipeline unscales it, (batch, height, width, 3) in [0, 1]."""
    vae, found = pipeline.vae, torch.from_numpy(latent)
    mean, std = (getattr(vae.config, f"latents_{name}", None) for name in ("mean", "std"))
    if mean is not None and std is not None:
        found = found * torch.tensor(std).view(1, -1, 1, 1)
    found = found / vae.config.scaling_factor
    if mean is not None and std is not None:
        found = found + torch.tensor(mean).view(1, -1, 1, 1)
    return (vae.decode(found, return_dict=False)[0] / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _cases(
    role: str,
    family: Family,
    pipeline: Any,  # noqa: ANN401 - a diffusers pipeline
    name: str,
    run: Run,
    values: Mapping[str, np.ndarray],
    noise: np.random.Generator,
) -> Iterator[Case]:
    """The calls of one part that a run contains, under the part's contract."""
    signature, setting = family.signature(name), run.setting
    # What the run time feeds for it: a classifier-free scale that is off is 1.
    steered = family.guidance.fed(setting.guidance_scale) if setting.guidance_scale is not None else {}
    where = f"{setting.label}, {setting.width}×{setting.height}"

    def pick(found: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        return tuple({p.name: found[p.name] for p in side if p.name in found} for side in (signature.inputs, signature.outputs))  # type: ignore[return-value]

    if role == "denoiser":
        batch, last = len(setting.prompts), len(run.times) - 1
        for index in sorted({0, last // 2, last}):
            known = {
                **values,
                "latent": run.model_inputs[index],
                "timestep": np.full(batch, run.times[index], np.float32),
                **{scale: np.full(batch, value, np.float32) for scale, value in steered.items()},
                "model_output": run.model_outputs[index],
            }
            yield Case(f"{where}, step {index + 1} of {last + 1}", *pick(known))
    elif role == "decoder":
        most = [signature.lengths(length)[1] for length in signature.inputs[0].shape[2:]]
        latent = run.latent[:, :, : most[0], : most[1]]  # of tiles, the first
        image = run.image if latent.shape == run.latent.shape else _image(pipeline, latent)
        yield Case(where, *pick({"latent": latent, "image": image}))
    elif role == "encoder":
        eps = noise.standard_normal(run.latent.shape, dtype=np.float32)
        latent = _latent(pipeline, run.image, eps)
        yield Case(where, *pick({"image": run.image, "noise": eps, "latent": latent}))
    else:
        yield Case(where, *pick(values))


@contextmanager
def _ranges(family: Family, pipeline: Any) -> Iterator[dict[str, float]]:  # noqa: ANN401 - a diffusers pipeline
    """Watch every module of every component for its largest finite or infinite output; NaN counts as infinite."""
    largest: dict[str, float] = {}
    hooks = []

    def watch(name: str) -> Callable[..., None]:
        def saw(_module: torch.nn.Module, _args: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.is_floating_point():
                peak = float(output.abs().amax()) if output.numel() else 0.0
                largest[name] = max(largest.get(name, 0.0), peak if peak == peak else float("inf"))  # noqa: PLR0124 - NaN

        return saw

    for name in family.roles:
        component = getattr(pipeline, name, None) or getattr(pipeline.vae, name.removeprefix("vae_"))
        hooks += [module.register_forward_hook(watch(name)) for module in component.modules()]
    try:
        yield largest
    finally:
        for hook in hooks:
            hook.remove()
