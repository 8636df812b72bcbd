"""The verb that finds noise by a reward's gradient."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.verbs.options import PATH

if TYPE_CHECKING:
    import numpy as np


@click.command("optimize-noise")
@click.argument("bundle", type=PATH)
@click.argument("prompts", nargs=-1, required=True)
@click.option("--reward", type=PATH, required=True, help="Folder of what is to rise: t2iexport reward makes one.")
@click.option("-o", "--output", type=PATH, default=Path("noise.npy"), show_default=True, help="What generate --noise takes.")
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True, help="Of the ascent, a gradient each.")
@click.option("--lr", "rate", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, help="Learning rate.")
@click.option("--weight", type=click.FloatRange(0, min_open=True), default=0.01, show_default=True, help="Of the reward.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the first noise; the next adds 1.")
@click.option("--steps", type=int, help="Of the sampler; the bundle says which it has.")
@click.option("--guidance-scale", type=float, help="How strictly the prompt steers; up to 1 is off.")
def optimize_noise_command(
    bundle: Path,
    prompts: tuple[str, ...],
    reward: Path,
    output: Path,
    iterations: int,
    rate: float,
    weight: float,
    **wishes: Any,  # noqa: ANN401 - seed, steps and guidance_scale
) -> None:
    """Find the noise whose image a reward likes best.

    The reward's gradient is followed through a few-step model in torch, so the source model is needed.
    """
    from exporter.noise.ascent import AscentOptions
    from exporter.noise.optimize import optimize
    from exporter.report import progress
    from exporter.stages.store import Store

    def told(iteration: int, rewards: np.ndarray) -> None:
        click.echo(f"\r{iteration} of {iterations}: {rewards[0]:.4g} ", err=True, nl=iteration == iterations)

    options = AscentOptions(iterations=iterations, rate=rate, weight=weight)
    with progress.stage_lines(error=True) as lines:
        shown = told if sys.stderr.isatty() else None
        found = optimize(bundle, reward, prompts, options, output, Store(say=lines.say), lines, shown, **wishes)
    for prompt, rewards, replayed in zip(prompts, found.rewards.T, found.replayed, strict=True):
        best = int(rewards.argmax())
        gained = f"{rewards[0]:.6g} → {rewards[best]:.6g} after {best} gradients"
        click.echo(f"{prompt}: {gained}; the bundle's own picture, on {found.engine}: {replayed:.6g}")
    click.echo(output)
