"""`python -m tools.coverage.trial NAME [--fp32]`: build the micro model of a name of diffusers', draw with it, and print its row.

The product builds it for ONNX Runtime and holds it to its own recordings; then the run time draws on torch's noise what
diffusers' untouched pipeline draws of the same prompts: one picture and two, two sizes, guidance on and off. A pipeline that
takes pictures is given the same ones, of another size than it draws where the bundle resizes them. What works is built and
compared once more with every part in fp16, but for `--fp32`.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import diffusers
import numpy as np
import torch
import transformers
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from engines.errors import ParityError, RecipeError, T2IError, UnsupportedError
from engines.guidance import USUAL
from engines.inputs import Input
from engines.pipeline import Pipeline
from engines.request import Request
from engines.signature import dimension
from engines.sizes import Sizes
from exporter.build import build
from exporter.families import claim
from exporter.families.tracing.following import guiders
from exporter.models.resolve import resolve
from exporter.recipe.schema import Component, Recipe
from exporter.stages import worker
from exporter.stages.store import Store
from tools.coverage.asked import CALLS, HEIGHTS, PICTURES, PLAIN, SIDES, WITH
from tools.coverage.models import MADE

#: Behind the name: measure nothing in fp16.
FP32 = "--fp32"
#: What a row must reach to be called working, in dB, of pictures in [0, 1].
LIMIT = 60.0
#: Pictures of a standard deviation below this show nothing.
DEAD = 1e-3
#: From the most that a pipeline may be able to do to the least, and a scale at which that does nothing.
MODES = {"classifier_free": (4.0, 1.0), "embedded": (3.5, 2.0), "none": (None, None)}
PROMPTS, NEGATIVE = ["A red circle", "the blue square"], "Blurry"
_RECIPE = """
model: %s
sampler: {steps: [%d], guidance: %s%s}
shapes: {height: [%d, %d, %d], width: [%d, %d, %d], batch: [1, 1, %d]}
checks: {prompts: [A red circle, the blue square], negative_prompt: Blurry}
%s"""
#: What the recipe of a micro model says that is shown a picture which it could do without.
_PICTURED = ("-pictured", "components: {condition: {}}\n")
#: Whose time is one a call, so that with guidance diffusers draws one picture; of which a list of pictures is one prompt's, or is
#: not resized for the text encoder; and whose pictures are others beside a longer prompt.
_ALONE = (
    "QwenImageEdit", "PRX", "StableDiffusionXLControlNetUnion", "Flux2",
    "Kandinsky", "Wuerstchen", "DreamLite",
)  # fmt: skip
#: Which take a text and no list of texts.
_ONE_TEXT = ("DreamLite",)
#: Which take a picture and no list of pictures.
_ONE_PICTURE = ("QwenImageEditPipeline", "QwenImageEditInpaintPipeline")
#: An argument of which one call takes one for all prompts, and what is asked of a model that reads none.
_SHARED, _WORDLESS = "ip_adapter_image", {"negative_prompt": ""}
#: What diffusers calls an input, where that is another word.
_WORDS = {"mask": "mask_image"}


def row(name: str, source: Any = None) -> dict[str, Any]:  # noqa: ANN401 - diffusers'
    """How it went: `state` is `works`, `differs` or `refused`; of the last, `why` is the product's own sentence.

    `source` is the pipeline, where it stands in none of diffusers' lists.

    Where no graph holds for all sizes, or for two pictures, `only` says so and `why` why, and each size has a bundle of its own.
    """
    side, wide = SIDES.get(name, (32, 48))
    height = HEIGHTS.get(name, side)
    refusals: list[T2IError] = []
    with tempfile.TemporaryDirectory() as folder:
        source = source or MADE[name]()
        source.save_pretrained(f"{folder}/model")
        for only, bundles, batch in ladder(side, wide):
            try:
                of = partial(built, name, Path(folder), height, batch=batch, more=stated(name))
                made = [(*of(widths), widths) for widths in bundles]
            except (UnsupportedError, ParityError) as error:
                refusals.append(error)
                continue
            compare = partial(compared, source, name, height=height)
            psnr = min(value for mode, bundle, widths in made for value in compare(bundle=bundle, mode=mode, widths=widths))
            state = "works" if psnr >= LIMIT else "differs"
            found = {"state": state, "psnr": round(psnr, 1), "guidance": made[0][0], **limits(name, only, refusals, folder)}
            return {**found, **halved(bundles, of, compare, folder)} if state == "works" else found
        return {"state": "refused", "why": sentence(refusals[-1], folder)}


def measured(
    widths: tuple[int, ...], build: Callable[..., tuple[str, Path]], compare: Callable[..., Iterable[float]], folder: str
) -> dict[str, Any]:
    """Of a row: what one bundle of these widths draws, in fp32 and then in fp16; `build` and `compare` are as of `halved`."""
    try:
        mode, bundle = build(widths)
    except T2IError as error:
        return {"state": "refused", "why": sentence(error, folder)}
    psnr = min(compare(bundle=bundle, mode=mode, widths=widths))
    found = {"state": "works" if psnr >= LIMIT else "differs", "psnr": round(psnr, 1), "guidance": mode}
    return {**found, **halved([widths], build, compare, folder)} if found["state"] == "works" else found


def halved(
    bundles: Iterable[tuple[int, ...]],
    build: Callable[..., tuple[str, Path]],
    compare: Callable[..., Iterable[float]],
    folder: str,
) -> dict[str, float | str]:
    """Of a row: `fp16`, PSNR in dB of the worst picture with every part in fp16, or the sentence where that does not build.

    `bundles` are the widths of each, of which `build` builds it. `compare` gives the PSNR of a `bundle`'s pictures, of its `mode`
    of guidance and `widths`. A sentence does not name the `folder`. Where fp32 alone is asked for there is none.
    """
    if FP32 in sys.argv:
        return {}
    found = list[float]()
    for widths in bundles:
        try:
            mode, bundle = build(widths, halves=True)
        except (RecipeError, UnsupportedError, ParityError) as error:
            return {"fp16": sentence(error, folder)}
        found += compare(bundle=bundle, mode=mode, widths=widths)
    return {"fp16": round(min(found), 1)}


def stated(name: str) -> str:
    """Further lines of a micro model's recipe."""
    return _PICTURED[1] if name.endswith(_PICTURED[0]) else ""


def limits(name: str, only: str, refusals: Sequence[T2IError], folder: str) -> dict[str, str]:
    """Of a row: what it leaves out, and why."""
    told = ", ".join(each for each in (only, WITH.get(name, "")) if each)
    return {**({"only": told} if told else {}), **({"why": sentence(refusals[0], folder)} if only and refusals else {})}


def ladder(side: int, wide: int) -> Iterator[tuple[str, list[tuple[int, ...]], int]]:
    """What is tried, one after the other: what it leaves out, the widths of each bundle, and the largest batch of its graphs."""
    yield "", [(side, wide)], 2
    yield "one picture at a time", [(side, wide)], 1
    yield "a bundle for each size", [(side,), (wide,)], 2
    yield "a bundle for each size, one picture at a time", [(side,), (wide,)], 1


def built(
    name: str,
    folder: Path,
    height: int,
    widths: tuple[int, ...],
    batch: int,
    *,
    steps: int = 2,
    more: str = "",
    model: Mapping[str, Any] | None = None,
    sampler: str = "",
    halves: bool = False,
) -> tuple[str, Path]:
    """Build it with the first mode of guidance that the pipeline has.

    `more` are further lines of its recipe, `model` further fields of its model, and `sampler` those of its sampler, as text. With
    `halves` every part is in fp16.
    """
    refusals: list[RecipeError] = []
    out = folder / f"bundle-{widths[0]}-{batch}{'-fp16' * halves}"
    for mode, (scale, _) in MODES.items():
        guidance = f"{{mode: {mode}, scale: {scale}}}" if scale else f"{{mode: {mode}}}"
        sizes = *[height] * 3, widths[0], widths[0], widths[-1], batch
        stated = {
            "source": str(folder / "model"),
            "call": CALLS.get(name, {}),
            "pictures": PICTURES.get(name, {}),
            **(model or {}),
        }
        text = _RECIPE % (json.dumps(stated), steps, guidance, sampler and f", {sampler}", *sizes, more)
        try:
            recipe = Recipe.parse(text, name)
            bundle, _ = build(_in_halves(recipe) if halves else recipe, out, Store(folder / "store"), silent)
        except RecipeError as error:
            refusals.append(error)
            continue
        return mode, bundle.folder
    raise UnsupportedError(str(refusals[0]))


def _in_halves(recipe: Recipe) -> Recipe:
    """The recipe with every part of its model in fp16."""
    parts = claim(resolve(recipe.model, Path()), recipe).roles
    return recipe.model_copy(update={"components": {part: Component(precision="fp16") for part in parts}})


def compared(source: Any, name: str, bundle: Path, mode: str, height: int, widths: tuple[int, ...]) -> Iterator[float]:  # noqa: ANN401 - diffusers'
    """PSNR in dB of every setting: one picture and two, two sizes, guidance on and off."""
    source.set_progress_bar_config(disable=True)
    takes = inspect.signature(source.__call__).parameters
    own = "true_cfg_scale" if mode == "classifier_free" and "true_cfg_scale" in takes else "guidance_scale"
    own = "decoder_guidance_scale" if "decoder_guidance_scale" in takes else own
    with Pipeline.open(bundle, "onnxruntime") as pipeline:
        switched = all(scale.off is not None for scale in pipeline.bundle.manifest.guidance.scales if scale.name == USUAL)
        scales = dict.fromkeys(MODES[mode] if switched or mode != "classifier_free" else MODES[mode][:1])
        for prompts, width, scale in itertools.product((PROMPTS[:1], PROMPTS), widths, scales):
            negative = NEGATIVE if mode == "classifier_free" else ""
            given: dict[str, Any] = {} if scale is None else {"guidance_scale": scale}
            inputs, sides = pipeline.bundle.manifest.inputs, Sizes(pipeline.bundle).named(height, width)
            pictures = _pictures(inputs, len(prompts), sides, resized="height" in takes)
            numbers = {each: int(entry.maximum or 1) // 3 for each, entry in inputs.items() if entry.kind == "integer"}
            given |= {"negative_prompt": negative, "seed": 7, "generator": "torch-cpu", "inputs": {**pictures, **numbers}}
            texts = prompts if pipeline.bundle.manifest.tokenizers else [""] * len(prompts)
            asked = Request.of(pipeline.bundle.manifest, texts, 1, **{**given, **({} if texts is prompts else _WORDLESS)})
            drawn = pipeline.draw(asked, height=height, width=width).images
            noise = [torch.Generator().manual_seed(7 + index) for index in range(len(prompts))]
            options = {own: 1.0 if scale is None else scale, "height": height, "width": width, "num_inference_steps": 2}
            options |= {**PLAIN, "max_area": height * width, **handed(pictures), **numbers, **CALLS.get(name, {})}
            options = {key: value for key, value in options.items() if key in takes}
            options |= {"negative_prompt": [negative] * len(prompts)} if negative and "negative_prompt" in takes else {}
            for guider in guiders.of(source).values():
                guider.guidance_scale = 1.0 if scale is None else scale
            with warnings.catch_warnings(), _means():
                warnings.simplefilter("ignore")  # of diffusers about its own arguments
                wanted = drawn_by(source, prompts, noise, options, ("negative_prompt", *handed(pictures)))
            if drawn is None or wanted.std() < DEAD:
                raise RuntimeError(f"{type(source).__name__} draws nothing that could be compared")
            yield float(-10 * np.log10(max(float(np.square(drawn - wanted).mean()), 1e-15)))


def drawn_by(
    source: Any,  # noqa: ANN401 - diffusers'
    prompts: Sequence[str],
    noise: Sequence[torch.Generator],
    options: Mapping[str, Any],
    each: Sequence[str],
) -> np.ndarray:
    """Diffusers' pictures, all in one call or each in its own; of the options that are named in `each` there is one a prompt."""
    alone = type(source).__name__.startswith(_ALONE) or _SHARED in options
    size, takes, found = 1 if alone else len(prompts), inspect.signature(source.__call__).parameters, list[np.ndarray]()
    for start in range(0, len(prompts), size):
        own = slice(start, start + size)
        given = {name: value[own] if name in each and value is not None else value for name, value in options.items()}
        texts: dict[str, Any] = {"prompt": list(prompts[own])} if "prompt" in takes else {}
        if type(source).__name__.startswith(_ONE_TEXT):
            texts |= {name: given.pop(name) for name in ("negative_prompt",) if name in given}
            texts = {name: value[0] for name, value in texts.items()}
        if type(source).__name__ in _ONE_PICTURE:
            given |= {name: shown[0] for name, shown in given.items() if name in ("image", "mask_image") and shown}
        if alone:  # a list of lists has one for each prompt
            given |= {name: own[0] for name, own in given.items() if name in each and _nested(own)}
        found.append(source(**texts, **given, generator=list(noise[own]), output_type="np", return_dict=False)[0])
    return np.concatenate(found)


def _nested(value: object) -> TypeGuard[list[list[Any]]]:
    """Whether it is a list of lists."""
    return isinstance(value, list) and isinstance(next(iter(value), None), list)


def _pictures(
    inputs: Mapping[str, Input], count: int, sides: Mapping[str, int], *, resized: bool
) -> dict[str, list[Image.Image]]:
    """That many pictures for each input, smooth and in colours; a mask is half white.

    They are as large as the input is for a latent of these `sides`, and half as large again where they are `resized`.
    """
    random, found = np.random.default_rng(0), dict[str, list[Image.Image]]()
    for name, about in ((name, about) for name, about in inputs.items() if about.pictured):
        lengths = ((each, "") if isinstance(each, int) else dimension(each) for each in about.shape[1:3])
        height, width = (factor * sides.get(side, 1) for factor, side in lengths)
        size = width, height
        larger = resized and about.preprocessing is not None and about.preprocessing.resize != "none"
        own = (size[0] * 3 // 2, size[1] * 3 // 2) if larger else size
        mask, filtered = about.kind == "mask", Image.Resampling.NEAREST if about.kind == "mask" else Image.Resampling.BICUBIC
        cells = [np.array([[0, 255]], np.uint8) if mask else random.integers(0, 256, (4, 4, 3), np.uint8) for _ in range(count)]
        found[name] = [Image.fromarray(each).resize(own, filtered) for each in cells]
    return found


def handed(pictures: Mapping[str, list[Image.Image]]) -> dict[str, Any]:
    """Them as diffusers takes them: those of inputs that are numbered are a list of each picture's."""
    found: dict[str, list[list[Image.Image]]] = {}
    for name, each in pictures.items():
        own = re.sub(r"_\d+$", "", name)
        found.setdefault(_WORDS.get(own, own), []).append(each)
    return {
        name: lists[0] if len(lists) == 1 else [list(row) for row in zip(*lists, strict=True)] for name, lists in found.items()
    }


@contextlib.contextmanager
def _means() -> Iterator[None]:
    """Within it diffusers encodes pictures to their mean where it adds noise that no seed reaches."""
    sample = DiagonalGaussianDistribution.sample

    def seeded(self: Any, generator: Any = None) -> torch.Tensor:  # noqa: ANN401 - diffusers'
        return self.mode() if generator is None else sample(self, generator)

    DiagonalGaussianDistribution.sample = seeded
    try:
        yield
    finally:
        DiagonalGaussianDistribution.sample = sample


def sentence(error: T2IError, folder: str) -> str:
    """Its first line, and diffusers' own where the second holds it; of a table the line that fails first."""
    first, *rest = str(error).replace(folder, "…").splitlines()
    if failed := [line for line in rest if "FAIL" in line]:
        return " ".join(failed[0].split())
    return " ".join([first, *(line.strip() for line in rest[:1])])


def silent(*_: object, **__: object) -> None:
    """Report nothing."""


def alone() -> None:
    """Say nothing beside the row, and start no second process: several trials may run side by side."""
    diffusers.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    worker.SMALL = 0


def main(measure: Callable[[str], Mapping[str, Any]]) -> None:
    """Print what is measured of the one micro model that is named, as JSON."""
    alone()
    print(json.dumps(measure(sys.argv[1]), ensure_ascii=False))


if __name__ == "__main__":
    main(row)
