"""Plays a bundle's recorded runs with other seeds too, and tells where it ends in another picture, which is not a worse one.

    python -m tools.measure.forks bundles/demo bundles/demo-int8-weights bundles/demo-int4 --seeds 6 --noise 40

The first bundle is what the others are held to. ``--noise`` plays it once more with so much noise on each output of its denoiser,
which tells whether a seed lies near a fork whatever is done to the network. Seeds are those of ``checks.seed`` in a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np

from engines.bundle import Bundle
from engines.pipeline import Pipeline
from engines.sessions import Network
from exporter.parity.metrics import psnr
from exporter.reference.recording import Setting, load_run

#: Final latents that differ by more are counted as of another picture, in dB.
FORK = 20.0


def settings(bundle: Path) -> list[Setting]:
    """What was recorded, from noise alone; the place in the list is the number by which its noise is made."""
    found = [load_run(file).setting for file in sorted((bundle / "recordings").glob("run_*.npz"))]
    return [setting for setting in found if setting.strength is None]


def play(
    bundle: Path, runs: Sequence[Setting], seeds: int, noise: float | None = None, backend: str | None = None
) -> list[list[np.ndarray]]:
    """Final latents, by run and seed; `noise` is the PSNR in dB at which each output of the denoiser is disturbed."""
    ((denoiser, _),) = Bundle.open(bundle).manifest.with_role("denoiser").items()

    def disturbed(name: str, _backend: str, network: Network) -> Network:
        random = np.random.Generator(np.random.Philox(0))

        def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {port: _noisy(array, noise or 0.0, random) for port, array in network(inputs).items()}

        return run if name == denoiser and noise is not None else network

    with Pipeline.open(bundle, backend, wrap=disturbed) as pipeline:
        return [[_final(pipeline, run, [seed, number]) for seed in range(seeds)] for number, run in enumerate(runs)]


def _final(pipeline: Pipeline, run: Setting, key: list[int]) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(key))
    _, channels, *size = pipeline.seeded(0, 1, run.height, run.width)().shape
    shape = (len(run.prompts), channels, *size)
    conditioning = pipeline.encode(run.prompts, run.negative_prompt or "")
    sampler = pipeline.sampler(run.steps, run.height, run.width)
    return pipeline.sample(conditioning, lambda: random.standard_normal(shape, dtype=np.float32), sampler, run.guidance_scale)


def _noisy(array: np.ndarray, decibels: float, random: np.random.Generator) -> np.ndarray:
    size = np.ptp(array) * 10 ** (-decibels / 20)
    return (array + size * random.standard_normal(array.shape)).astype(np.float32)


def row(label: str, got: Sequence[Sequence[np.ndarray]], wanted: Sequence[Sequence[np.ndarray]]) -> str:
    """One line of the table: how many forked, and the worst of the others."""
    found = [psnr(one, other) for mine, theirs in zip(got, wanted, strict=True) for one, other in zip(mine, theirs, strict=True)]
    others = [decibels for decibels in found if decibels >= FORK]
    worst = f"{min(others):.1f} dB" if others else "–"
    median = f"{float(np.median(found)):.1f} dB"
    first = min(psnr(mine[0], theirs[0]) for mine, theirs in zip(got, wanted, strict=True))
    return f"| {label} | {len(found) - len(others)} of {len(found)} | {worst} | {median} | {first:.1f} dB |"


@click.command()
@click.argument("reference", type=click.Path(path_type=Path, exists=True))
@click.argument("bundles", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--seeds", default=6, show_default=True)
@click.option("--noise", type=float, multiple=True, help="PSNR in dB; may be given several times.")
@click.option("--backend", help="Of every bundle.  [default: as generate]")
def main(reference: Path, bundles: tuple[Path, ...], seeds: int, noise: tuple[float, ...], backend: str | None) -> None:
    """Prints how many of each bundle's trajectories end in another picture than the reference's."""
    runs = settings(reference)
    wanted = play(reference, runs, seeds, backend=backend)
    click.echo(
        f"| {len(runs)} runs, {seeds} seeds | forked, below {FORK:g} dB | worst of the others | median | worst of seed 0 |"
    )
    click.echo("|---|---|---|---|---|")
    for decibels in noise:
        click.echo(row(f"noise at {decibels:g} dB", play(reference, runs, seeds, decibels, backend), wanted))
    for bundle in bundles:
        click.echo(row(bundle.name, play(bundle, runs, seeds, backend=backend), wanted))


if __name__ == "__main__":
    main()
