"""Measures parallel sampling of the demo model against the same pictures drawn one step after the other.

    python -m tools.measure.parallel bundles/demo-ddim-100 window=40,tolerance=0.03 window=40,tolerance=0.06
    python -m tools.measure.parallel bundles/demo-ddpm-1000 --prompts 8 window=100,tolerance=0.06

The bundles are those of recipes/demo-ddim-100.yaml and recipes/demo-ddpm-1000.yaml. Prompts are spread evenly over the 1000
evaluation prompts; every picture's seed is its number. One line per setting: what it took per picture (median), how near the
pictures are to the sequential ones, time against the sequential time on this machine, and how many pictures show what their
prompt states. ``--keep`` stores the sequential latents, so that more settings can be measured later.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from engines.parallel.picard import Picard
from engines.pipeline import Pipeline
from engines.samplers import Draw
from engines.samplers.table import Table
from tools.demo.captions import evaluation_prompts, parse
from tools.demo.score import complaint

HEAD = (
    "| sampler | steps | window | tolerance | anderson | iterations | evaluations | steps saved | PSNR median / worst "
    "| time to sequential | right, sequential → parallel |"
)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Of two pictures in [0, 1], dB."""
    return float(-10 * np.log10(np.mean(np.square(one - other, dtype=np.float64)) + 1e-20))


def right(pictures: np.ndarray, texts: list[str]) -> int:
    """How many float pictures (N, 64, 64, 3) show what their prompts state."""
    shown = np.round(pictures * 255).astype(np.uint8)
    return sum(complaint(picture, parse(text)) is None for picture, text in zip(shown, texts, strict=True))


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1, required=True)
@click.option("--prompts", "count", default=32, show_default=True)
@click.option("--batch", default=8, show_default=True, help="Pictures per call.")
@click.option("--keep", type=click.Path(path_type=Path), default=None, help="NPZ file of the sequential latents.")
def main(bundle: Path, settings: tuple[str, ...], count: int, batch: int, keep: Path | None) -> None:
    """Plays the bundle's first sampler sequentially and with every setting, and prints a Markdown table."""
    prompts = evaluation_prompts(500)
    texts = [prompts[index].text for index in np.linspace(0, len(prompts) - 1, count).astype(int)]
    with Pipeline.open(bundle, threads=1) as pipeline:
        defaults = pipeline.bundle.manifest.defaults
        table = pipeline.sampler(defaults.steps, defaults.height, defaults.width)
        if not isinstance(table, Table):
            raise click.ClickException(f"{bundle}: its first sampler is no table, and nothing else is played in parallel")
        parts = [slice(start, start + batch) for start in range(0, count, batch)]
        conditioning = [pipeline.encode(texts[part]) for part in parts]

        def draw(part: slice) -> Draw:
            return pipeline.seeded(part.start, len(texts[part]), defaults.height, defaults.width)

        if keep and keep.exists():
            stored = np.load(keep)
            latents, seconds = stored["latents"], float(stored["seconds"])
        else:
            started = time.monotonic()
            latents = np.concatenate(
                [pipeline.sample(own, draw(part), table) for own, part in zip(conditioning, parts, strict=True)]
            )
            seconds = time.monotonic() - started
            if keep:
                np.savez(keep, latents=latents, seconds=seconds)
        wanted = pipeline.decode(latents)
        before = right(wanted, texts)
        click.echo(f"{HEAD}\n|{'---|' * HEAD.count(' | ')}---|")
        for setting in settings:
            options = Picard.model_validate_strings(dict(pair.split("=") for pair in setting.split(",")))
            player, efforts, found, started = options.over(table), [], [], time.monotonic()
            for own, part in zip(conditioning, parts, strict=True):
                found.append(pipeline.sample(own, draw(part), player))
                efforts += player.efforts
            ratio = (time.monotonic() - started) / seconds
            pictures = pipeline.decode(np.concatenate(found))
            near = [psnr(one, other) for one, other in zip(pictures, wanted, strict=True)]
            iterations, evaluations = (
                float(np.median([getattr(effort, name) for effort in efforts])) for name in ("iterations", "evaluations")
            )
            cells = [
                table.provenance.scheduler.removesuffix("Scheduler"),
                defaults.steps,
                options.window,
                f"{options.tolerance:g}",
                options.anderson,
                f"{iterations:g}",
                f"{evaluations:g}",
                f"{defaults.steps - iterations:g}",
                f"{np.median(near):.1f} / {min(near):.1f} dB",
                f"{ratio:.2f}",
                f"{before} → {right(pictures, texts)} of {count}",
            ]
            click.echo("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
