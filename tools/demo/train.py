"""Trains the demo model, stage by stage.

    python -m tools.demo.train tokenizer
    python -m tools.demo.train text
    python -m tools.demo.train vae --hours 0.33
    python -m tools.demo.train latents
    python -m tools.demo.train unet --hours 1.6
    python -m tools.demo.train decoder --hours 0.13
    python -m tools.demo.train export
    python -m tools.demo.train curve

With ``python -m torch.distributed.run --nproc-per-node 2 -m tools.demo.train``
a stage trains in two processes of one thread each (``--threads 1``).

Every stage keeps its state in a folder below ``--work``; a cut stage goes on
with ``--resume`` and ends with the same weights as if it had not been cut.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch

from tools.demo.captions import evaluation_prompts
from tools.demo.pictures import draw_with
from tools.demo.score import score
from tools.demo.training import adapt as adapt_stage
from tools.demo.training import curve as curve_stage
from tools.demo.training import export as export_stage
from tools.demo.training import latents as latents_stage
from tools.demo.training import ranks
from tools.demo.training import text as text_stage
from tools.demo.training import unet as unet_stage
from tools.demo.training import vae as vae_stage
from tools.demo.training import words as words_stage
from tools.demo.training.loop import Plan

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

_WATCH_PROMPTS = 32
_WATCH_STEPS = 15
_WATCH_SEED = 10_000_000
"""Far from the seeds of the final score."""


class _Watcher:
    """Scores the averaged denoiser on a few prompts of each kind."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._prompts = evaluation_prompts(_WATCH_PROMPTS)

    def __call__(self, step: int, denoiser: UNet2DConditionModel) -> dict[str, float]:
        """Returns the shares of right pictures; keeps the generator's state."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            parts = export_stage.frozen_parts(self._work)
            pipeline = export_stage.assemble(*parts[:2], denoiser, parts[2])
            pictures = draw_with(pipeline, _WATCH_STEPS)
            result = score(pictures, self._prompts, _WATCH_SEED, batch=_WATCH_PROMPTS)
        shares = {group: entry["share"] for group, entry in result.items() if isinstance(entry, dict) and group != "all"}
        sys.stdout.write(f"step {step}: {result}\n")
        sys.stdout.flush()
        return shares


@click.command()
@click.argument(
    "stage", type=click.Choice(["tokenizer", "text", "vae", "latents", "adapt", "unet", "decoder", "export", "curve"])
)
@click.option("--work", type=click.Path(path_type=Path), default=Path(".train"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("recipes/demo"))
@click.option("--steps", type=int, default=None, help="Steps in all; overrides --hours.")
@click.option("--hours", type=float, default=1.0, help="Planned time of vae, unet or decoder.")
@click.option("--scenes", type=int, default=100_000, help="Size of the latents' pool.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--peak", type=float, default=1e-3, show_default=True, help="Highest learning rate of unet.")
@click.option(
    "--start",
    type=click.Path(path_type=Path, exists=True),
    default=None,
    help="Folder that unet starts with, or work folder that adapt takes its denoiser from.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--eager", is_flag=True, help="Do not compile the denoiser.")
def main(
    *,
    stage: str,
    work: Path,
    output: Path,
    steps: int | None,
    hours: float,
    scenes: int,
    threads: int,
    peak: float,
    start: Path | None,
    resume: bool,
    eager: bool,
) -> None:
    """Runs one stage of the demo model's training."""
    torch.set_num_threads(threads)
    ranks.start()
    if stage == "tokenizer":
        words_stage.train(work / "tokenizer")
    elif stage == "text":
        plan = Plan(steps or text_stage.STEPS, peak=1e-3, warmup=100)
        text_stage.train(work / "text", work / "tokenizer", plan, resume=resume)
    elif stage == "vae":
        plan = Plan(steps, hours, peak=1.5e-3)
        vae_stage.train(work / "vae", plan, resume=resume)
    elif stage == "latents":
        latents_stage.encode(work / "vae", work / "latents", scenes)
    elif stage == "adapt":
        if start is None:
            raise click.UsageError("adapt takes the denoiser from another work folder: name it with --start")
        adapt_stage.write(start, work)
    elif stage == "decoder":
        plan = Plan(steps, hours, peak=1e-3, warmup=100)
        vae_stage.train_decoder(work / "decoder", work / "vae", plan, resume=resume)
    elif stage == "unet":
        # Weights that are nearly right need neither a long warm-up nor a long average.
        pace = (300, 0.999) if start is None else (50, 0.99)
        plan = Plan(steps, hours, peak=peak, warmup=pace[0], decay_ema=pace[1])
        inputs = unet_stage.Inputs(work / "tokenizer", work / "text", work / "latents")
        watcher = _Watcher(work)
        unet_stage.train(work / "unet", inputs, plan, resume=resume, start=start, fast=not eager, watch=watcher)
    elif stage == "curve":
        log = work / "unet" / "curve.jsonl"
        curve_stage.write(log, output / "curve.csv", Path("docs/images/demo_curve.png"))
    else:
        export_stage.write(work, output)


if __name__ == "__main__":
    main()
