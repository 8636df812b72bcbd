"""`python -m tools.coverage.own_halves NAME …`: what half precision costs diffusers itself, of micro models from text.

Its own pipeline with every network in fp16 against the same in float32, on the same weights, prompt, size, steps and noise. A
bundle in fp16 that is as far from float32 loses what the model loses, and nothing of its own.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import numpy as np
import torch

from exporter.parity.metrics import psnr
from tools.coverage import trial
from tools.coverage.asked import CALLS, PLAIN, SIDES
from tools.coverage.models import MADE

#: What pipelines call the scale of their guidance, the one that is meant first; and what it is asked for.
_SCALES, _ASKED = ("true_cfg_scale", "decoder_guidance_scale", "guidance_scale"), (4.0, 1.0)


def lost(make: Callable[[], Any], name: str) -> dict[str, float]:
    """Guidance scale → PSNR in dB of the picture that diffusers draws in fp16, against the one that it draws in float32."""
    single, half = make(), make().to(torch.float16)
    for pipeline in (single, half):
        pipeline.set_progress_bar_config(disable=True)
    found = dict[str, float]()
    for scale in _ASKED:
        want, got = (_drawn(pipeline, name, scale) for pipeline in (single, half))
        found[f"{scale:g}"] = round(psnr(got, want, 1.0), 1)
    return found


def _drawn(pipeline: Any, name: str, scale: float) -> np.ndarray:  # noqa: ANN401 - of diffusers
    takes, side = inspect.signature(pipeline.__call__).parameters, SIDES.get(name, (32, 48))[0]
    own = next(each for each in _SCALES if each in takes)
    options = {"height": side, "width": side, "num_inference_steps": 2, "negative_prompt": [trial.NEGATIVE], own: scale}
    options |= {**PLAIN, "max_area": side * side, **CALLS.get(name, {})}
    options = {key: value for key, value in options.items() if key in takes}
    with warnings.catch_warnings(), _rounded_noise():
        warnings.simplefilter("ignore")  # of diffusers about its own arguments
        return trial.drawn_by(pipeline, trial.PROMPTS[:1], [torch.Generator().manual_seed(7)], options, ("negative_prompt",))


@contextmanager
def _rounded_noise() -> Iterator[None]:
    """Within it noise in half precision is float32's, rounded; of lengths that are no multiple of 16 torch draws another."""
    real = torch.randn

    def drawn(*size: Any, dtype: torch.dtype | None = None, **given: Any) -> torch.Tensor:  # noqa: ANN401 - torch's
        return real(*size, dtype=torch.float32, **given).to(dtype or torch.float32)

    torch.randn = drawn
    try:
        yield
    finally:
        torch.randn = real


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(sorted(MADE)))
def main(names: tuple[str, ...]) -> None:
    """Print, for each name, dB by guidance scale as JSON."""
    trial.alone()
    for name in names:
        click.echo(json.dumps({name: lost(MADE[name], name)}))


if __name__ == "__main__":
    main()
