"""`python -m tools.coverage.edits NAME`: the trial of what starts from a picture, and fills a mask in it; prints a row of each.

The micro model of the name is built with an encoder of images and held to its own recordings. Then the run time draws what
diffusers' untouched pipeline of each task draws of the same networks, pictures, prompts and torch's noise: one picture and two,
two sizes, guidance on and off, several strengths. What works is built and compared once more with every part in fp16.
"""

from __future__ import annotations

import inspect
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from engines.errors import ParityError, T2IError, UnsupportedError
from engines.pipeline import Pipeline
from engines.request import Request
from exporter.families.tracing.pictures import depth_maps
from tools.coverage import pipelines, trial
from tools.coverage.asked import CALLS, SIDES
from tools.coverage.models import MADE
from tools.coverage.rows import TASKS, edited
from tools.coverage.trial import (
    DEAD,
    LIMIT,
    MODES,
    NEGATIVE,
    PROMPTS,
    built,
    drawn_by,
    halved,
    ladder,
    limits,
    sentence,
)

#: Task → strengths of the first setting; all others have the first of them. Of four steps two or three are taken at 0.6.
_STRENGTHS: Mapping[str, tuple[float, ...]] = {"image-to-image": (0.6, 0.3, 1.0), "inpainting": (0.6, 1.0)}
#: How many are taken, and what a recipe says beside.
STEPS, _ENCODER = 4, "components: {vae_encoder: {}}\n"
#: Which take a height for the width, so that diffusers is asked for them the other way round, and the rows that say so.
_TURNED = ("KandinskyV22Img2Img",)
_WITH = {("kandinsky22", "image-to-image"): "diffusers asked for width as height, since its own code swaps them"}
#: Micro models that are not those from text: diffusers fills masks with SD3 of 16 channels alone, and decodes without its shift.
OWN: Mapping[tuple[str, str], Callable[[], DiffusionPipeline]] = {
    ("stable-diffusion-3", "inpainting"): partial(pipelines.stable_diffusion_3, channels=16, shift_factor=0.0),
}


def rows(name: str) -> dict[str, dict[str, Any]]:
    """Task → how it went, as a row of `tools.coverage.trial`, of those tasks for which diffusers has the name."""
    tasks = edited(name)
    own = {task: make for task in tasks if (make := OWN.get((name, task)))}
    shared = [task for task in tasks if task not in own]
    found = _rows(name, MADE[name](), shared) if shared else {}
    for task, make in own.items():
        found |= _rows(name, make(), [task])
    return found


def _rows(name: str, source: Any, tasks: Sequence[str]) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - a pipeline of diffusers
    """The rows of a micro model, built once."""
    side, wide = SIDES.get(name, (32, 48))
    refusals: list[T2IError] = []
    with tempfile.TemporaryDirectory() as folder:
        source.save_pretrained(f"{folder}/model")
        for only, bundles, batch in ladder(side, wide):
            try:
                of = partial(built, name, Path(folder), side, batch=batch, steps=STEPS, more=_ENCODER)
                made = [(*of(widths), widths) for widths in bundles]
            except (UnsupportedError, ParityError) as error:
                refusals.append(error)
                continue
            found = dict[str, dict[str, Any]]()
            for task in tasks:
                left = limits(name, only, refusals, folder)
                if told := _WITH.get((name, task)):
                    left["only"] = ", ".join(each for each in (left.get("only"), told) if each)
                compare = partial(compared, TASKS[task][name].from_pipe(source), name, task=task, height=side)
                each = [value for mode, bundle, widths in made for value in compare(bundle=bundle, mode=mode, widths=widths)]
                state = "works" if min(each) >= LIMIT else "differs"
                found[task] = {"state": state, "psnr": round(min(each), 1), "guidance": made[0][0], **left}
                if state == "works":
                    found[task] |= halved(bundles, of, compare, folder)
            return found
        return {task: {"state": "refused", "why": sentence(refusals[-1], folder)} for task in tasks}


def compared(
    editor: Any,  # noqa: ANN401 - diffusers'
    name: str,
    bundle: Path,
    task: str,
    mode: str,
    height: int,
    widths: tuple[int, ...],
) -> Iterator[float]:
    """PSNR in dB of every setting."""
    editor.set_progress_bar_config(disable=True)
    first, *more = _STRENGTHS[task]
    settings = [
        *((prompts, width, scale, first) for prompts in (PROMPTS[:1], PROMPTS) for width in widths for scale in MODES[mode]),
        *((PROMPTS[:1], widths[0], MODES[mode][0], strength) for strength in more),
    ]
    with Pipeline.open(bundle, "onnxruntime") as pipeline:
        for prompts, width, scale, strength in dict.fromkeys(map(_hashable, settings)):
            yield _one(editor, pipeline, task, mode, (height, width), prompts, scale, strength, call=CALLS.get(name, {}))


def _hashable(setting: tuple[Any, ...]) -> tuple[Any, ...]:
    return (tuple(setting[0]), *setting[1:])


def _one(
    editor: Any,  # noqa: ANN401
    pipeline: Pipeline,
    task: str,
    mode: str,
    size: tuple[int, int],
    prompts: tuple[str, ...],
    scale: float | None,
    strength: float,
    *,
    call: Mapping[str, Any],
) -> float:
    """PSNR in dB of the pictures of some prompts, before the bundle puts back what a mask keeps, which diffusers does not."""
    manifest, random = pipeline.bundle.manifest, np.random.default_rng(0)
    takes = inspect.signature(editor.__call__).parameters
    pictured = [name for name, about in manifest.inputs.items() if about.pictured]
    shown = {name: [_smooth(size, random) for _ in prompts] for name in ("image", *pictured)}
    masks = [_half(size)] * len(prompts) if task == "inpainting" else None
    negative = NEGATIVE if mode == "classifier_free" else ""
    given: dict[str, Any] = {} if scale is None else {"guidance_scale": scale}
    given |= {"strength": strength, "image": shown.pop("image"), "mask": masks, "inputs": shown}
    asked = Request.of(manifest, list(prompts), 1, **given, negative_prompt=negative, seed=7, generator="torch-cpu")
    latent = pipeline.draw(asked, height=size[0], width=size[1]).latents
    drawn = None if latent is None else pipeline.decode(latent)
    own = "true_cfg_scale" if mode == "classifier_free" and "true_cfg_scale" in takes else "guidance_scale"
    # The bundle's further scales are those of the pipeline from text, and the others have other defaults.
    options = {each.name: each.default for each in manifest.guidance.scales}
    options |= {own: 1.0 if scale is None else scale, "num_inference_steps": STEPS, "strength": strength, **shown, **call}
    sides = size[::-1] if type(editor).__name__.startswith(_TURNED) else size
    options |= {"image": given["image"], "mask_image": masks, "height": sides[0], "width": sides[1]}
    options |= {"negative_prompt": [negative] * len(prompts)} if negative else {}
    noise = [torch.Generator().manual_seed(7 + index) for index in range(len(prompts))]
    options |= {each: depth_maps.handed(shown[each]) for each in depth_maps.named(editor) if each in shown}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of diffusers about its own arguments
        usual = {key: value for key, value in options.items() if key in takes}
        wanted = drawn_by(editor, prompts, noise, usual, ("negative_prompt", "image", "mask_image", *shown))
    if drawn is None or wanted.std() < DEAD:
        raise RuntimeError(f"{type(editor).__name__} draws nothing that could be compared")
    return float(-10 * np.log10(max(float(np.square(drawn - wanted).mean()), 1e-15)))


def _smooth(size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """A picture of smooth colours, of (height, width)."""
    return Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8)).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def _half(size: tuple[int, int]) -> Image.Image:
    """A mask whose right half is white."""
    return Image.fromarray(np.array([[0, 255]], np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST)


if __name__ == "__main__":
    trial.main(rows)
