"""Micro models of pipelines whose last steps another model takes: SDXL's refiner behind its base, without a VAE between them."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.pipeline import Pipeline
from tools.coverage import trial

#: Steps of the whole way, and the shares of it at which one model ends and the other begins; of them some cut between times.
STEPS, SHARES = 5, (0.8, 0.4)
_SIDE, _WIDTHS = 32, (32, 48)


def row(name: str, base: Any, refiner: Any) -> dict[str, Any]:  # noqa: ANN401 - diffusers'
    """How it went, as `trial.row` has it: the base's bundle, and the refiner's that goes on from its latents."""
    found = {"pipeline": f"{type(base).__name__}, then {type(refiner).__name__}"}
    with tempfile.TemporaryDirectory() as folder:
        for part, source in (("base", base), ("refiner", refiner)):
            source.set_progress_bar_config(disable=True)
            source.save_pretrained(f"{folder}/{part}/model")

        def of(widths: tuple[int, ...], *, halves: bool = False) -> tuple[str, Path]:
            """Both bundles, in one folder."""
            own = partial(trial.built, name, height=_SIDE, widths=widths, batch=2, steps=STEPS, sampler="handover: true")
            _, last = (own(folder=Path(folder) / part, halves=halves) for part in ("base", "refiner"))
            return last

        def compare(bundle: Path, mode: str, widths: tuple[int, ...]) -> Iterator[float]:  # noqa: ARG001 - as the others
            return compared(base, refiner, Path(folder) / "base" / bundle.name, bundle, mode)

        return {**found, **trial.measured(_WIDTHS, of, compare, folder)}


def compared(base: Any, refiner: Any, base_bundle: Path, refiner_bundle: Path, mode: str) -> Iterator[float]:  # noqa: ANN401
    """PSNR in dB of every setting: one picture and two, two sizes, guidance on and off, two shares."""
    with Pipeline.open(base_bundle, "onnxruntime") as first, Pipeline.open(refiner_bundle, "onnxruntime") as last:
        settings = itertools.product((trial.PROMPTS[:1], trial.PROMPTS), _WIDTHS, dict.fromkeys(trial.MODES[mode]), SHARES)
        for prompts, width, scale, share in settings:
            given = {"guidance_scale": scale, "seed": 7, "generator": "torch-cpu", "negative_prompt": trial.NEGATIVE}
            size = {"height": _SIDE, "width": width}
            latents = first.latents(list(prompts), **given, **size, denoising_end=share)
            drawn = last.latents(list(prompts), **given, image=latents, denoising_start=share)
            own = {"prompt": list(prompts), "negative_prompt": [trial.NEGATIVE] * len(prompts), "num_inference_steps": STEPS}
            own |= {
                "guidance_scale": scale,
                "generator": [torch.Generator().manual_seed(7 + each) for each in range(len(prompts))],
            }
            handed = base(**own, **size, denoising_end=share, output_type="latent").images
            wanted = refiner(**own, image=handed, denoising_start=share, output_type="np").images
            yield float(-10 * np.log10(max(float(np.square(last.decode(drawn) - wanted).mean()), 1e-15)))
