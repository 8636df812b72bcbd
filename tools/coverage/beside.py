"""Micro models of pipelines that stand beside diffusers' lists: without text, with class labels, or made to change a picture.

`python -m tools.coverage.beside NAME` builds one, holds what the run time draws without text to diffusers, one picture and two,
guidance on and off, with every part in fp16 once more, and prints its row.
"""

from __future__ import annotations

import inspect
import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.pipeline import Pipeline
from engines.request import Request
from tools.coverage import edits, handover, prompted, trial, unets
from tools.coverage.models import BESIDE, FROM_TEXT

#: Classes that are drawn, one a picture, where a pipeline asks for them.
_CLASSES = (3, 7)
_SIDE = 32
#: Those that take texts and pictures, and draw more than one size.
_PICTURED = ("stable-diffusion-x4-upscaler", "stable-diffusion-latent-upscaler")
#: A refiner that goes on where its base has stopped.
_REFINED = "stable-diffusion-xl-base-and-refiner"
#: Whose pictures of one call change each other: diffusers draws each in its own.
_ALONE = ("score-sde-ve",)
#: Those that start from a picture.
_EDITED = ("stable-diffusion-depth2img", "stable-diffusion-xl-refiner")
#: Widths of pictures of those that are not of one size.
_WIDTHS = (_SIDE, 48)


def row(name: str) -> dict[str, Any]:
    """How it went, as `trial.row` has it; `pipeline` is its class."""
    made: Any = BESIDE[name]()
    found = {"pipeline": type(made).__name__}
    if name == _REFINED:
        return handover.row(name, unets.stable_diffusion_xl(), made)
    if name in FROM_TEXT:
        return {**found, **trial.row(name, made)}
    shown, alone = name in prompted.MADE or name in _PICTURED, name in _ALONE
    widths, steps = (_WIDTHS if shown or name in _EDITED else (_SIDE,)), edits.STEPS if name in _EDITED else 2

    def compare(bundle: Path, mode: str, widths: tuple[int, ...]) -> Iterator[float]:
        if name in _EDITED:
            return edits.compared(made, name, bundle, "image-to-image", mode, _SIDE, widths)
        if shown:
            return trial.compared(made, name, bundle, mode, _SIDE, widths)
        return _compared(made, bundle, mode, alone=alone)

    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(f"{folder}/model")
        model = _adapted(name, made, Path(folder)) if name in prompted.ADAPTED else {}
        of = partial(trial.built, name, Path(folder), _SIDE, batch=1 if alone else 2, steps=steps, model=model)
        measured = trial.measured(widths, of, compare, folder)
        return {**found, **measured, **({"only": "one picture at a time"} if alone and "psnr" in measured else {})}


def _adapted(name: str, source: Any, folder: Path) -> dict[str, Any]:  # noqa: ANN401 - diffusers'
    """Give a pipeline the adapter that belongs to it, and return the fields of a recipe's model that do so."""
    asked = prompted.write_ip_adapter(folder / "adapter", prompted.ADAPTED[name](source.unet))
    source.load_ip_adapter(asked["source"], subfolder=asked["subfolder"], weight_name=asked["weight_name"])
    source.set_ip_adapter_scale(1.0)
    return {"ip_adapter": asked}


def _compared(source: Any, bundle: Path, mode: str, *, alone: bool) -> Iterator[float]:  # noqa: ANN401 - diffusers'
    """PSNR in dB of every setting; `alone`: diffusers draws one picture a call."""
    source.set_progress_bar_config(disable=True)
    takes = inspect.signature(source.__call__).parameters
    with Pipeline.open(bundle, "onnxruntime") as pipeline:
        about = pipeline.bundle.manifest
        for count, scale in itertools.product((1, 2), dict.fromkeys(trial.MODES[mode])):
            classes = list(_CLASSES[:count])
            given: dict[str, Any] = {} if scale is None else {"guidance_scale": scale}
            given |= {"inputs": dict.fromkeys(about.inputs, classes), "negative_prompt": "", "seed": 7, "generator": "torch-cpu"}
            drawn = pipeline.draw(Request.of(about, [""] * count, 1, **given), height=_SIDE, width=_SIDE).images
            asked = {"batch_size": count, "class_labels": classes, "guidance_scale": 1.0 if scale is None else scale}
            asked |= {"num_inference_steps": 2, "output_type": "np"}
            noise = [torch.Generator().manual_seed(7 + index) for index in range(count)]
            asked = {each: asked[each] for each in asked if each in takes}
            if alone:
                wanted = np.concatenate([source(**{**asked, "batch_size": 1}, generator=each).images for each in noise])
            else:
                wanted = source(**asked, generator=noise).images
            if drawn is None or wanted.std() < trial.DEAD:
                raise RuntimeError(f"{type(source).__name__} draws nothing that could be compared")
            yield float(-10 * np.log10(max(float(np.square(drawn - wanted).mean()), 1e-15)))


if __name__ == "__main__":
    trial.main(row)
