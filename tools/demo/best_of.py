"""Scores best-of-N on the demo: of N pictures of a prompt the one that a reward chooses, and whether the checker finds it right.

    python -m tools.demo.best_of --bundle bundles/demo --reward rewards/scenes --steps 10 --guidance 1
    python -m tools.demo.best_of --bundle bundles/demo-turbo --reward rewards/scenes --gradients 50

Each prompt is drawn --most times. Best-of-N is the mean over as many groups of N as there are, so all numbers are of the same
pictures. `any right` is what a choice could reach at most. With --gradients the noise of each prompt's first picture is optimised
too, as t2iexport optimize-noise does it, and drawn with the bundle.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from engines.pipeline import Pipeline
from engines.reward import Reward
from exporter.parity.intervals import bootstrap
from tools.demo.captions import evaluation_prompts
from tools.demo.check_scene import matches

#: Pictures whose noise is optimised together.
_TOGETHER = 20


def best_of(rewards: np.ndarray, right: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of the best of each `number`, and the share of them that is right, of every prompt in the mean.

    Args:
        rewards: (prompts, drawn).
        right: 0 or 1, as rewards.
        number: a divisor of drawn.

    """
    groups = rewards.reshape(len(rewards), -1, number)
    chosen = groups.argmax(2)[..., None]
    return groups.max(2).mean(1), np.take_along_axis(right.reshape(groups.shape), chosen, 2).mean((1, 2))


def optimized(bundle: Path, reward: Path, prompts: Sequence[str], seeds: Sequence[int], gradients: int, **how: Any) -> np.ndarray:  # noqa: ANN401
    """Optimised draws, float32 (draws, pictures, C, H, W), a picture a prompt."""
    from exporter.noise.ascent import AscentOptions  # noqa: PLC0415 - torch
    from exporter.noise.optimize import NoiseSearch  # noqa: PLC0415 - torch
    from exporter.stages.store import Store  # noqa: PLC0415

    search, found = NoiseSearch(bundle, reward, Store(), lambda *_, **__: None), list[np.ndarray]()
    for first in range(0, len(prompts), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        draws, _ = search.optimize(prompts[some], AscentOptions(iterations=gradients), seed=seeds[some], **how)
        found.append(draws)
        click.echo(f"\rnoise of {min(first + _TOGETHER, len(prompts))} of {len(prompts)}", err=True, nl=some.stop >= len(prompts))
    return np.concatenate(found, axis=1)


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--reward", type=click.Path(path_type=Path), required=True, help="Folder, as t2iexport reward makes one.")
@click.option("--steps", type=int, help="Of the sampler.")
@click.option("--guidance", type=float, help="Scale; 1 is without.")
@click.option("--prompts", "count", default=60, show_default=True, help="Half of one object, half of two.")
@click.option("--most", default=16, show_default=True, help="Pictures of each prompt: 4, 16 …")
@click.option("--seed", default=0, show_default=True)
@click.option("--gradients", default=0, show_default=True, help="Of each prompt's first noise; needs the source model.")
def main(
    bundle: Path,
    reward: Path,
    steps: int | None,
    guidance: float | None,
    count: int,
    most: int,
    seed: int,
    gradients: int,
) -> None:
    """Print rewards and shares as a Markdown table, each share with its 95% interval over the prompts."""
    prompts = [each.text for each in evaluation_prompts(count // 2)]
    rewards, right = np.zeros((len(prompts), most)), np.zeros((len(prompts), most))
    wishes = {"steps": steps, "guidance_scale": guidance}
    with Pipeline.open(bundle) as pipeline, Reward.open(reward) as judge:
        judging, start = 0.0, time.perf_counter()
        for index, prompt in enumerate(prompts):
            drawn = pipeline.generate([prompt] * most, seed=seed + most * index, **wishes)
            before = time.perf_counter()
            rewards[index] = judge.scores(drawn, [prompt] * most)
            judging += time.perf_counter() - before
            right[index] = [matches(np.asarray(each), prompt) for each in drawn]
            click.echo(f"\r{index + 1} of {len(prompts)}", err=True, nl=index + 1 == len(prompts))
        click.echo(f"judging took {judging / (time.perf_counter() - start):.1%} of the time")
        numbers = [4**power for power in range(10) if 4**power <= most]
        rows = {f"best of {number}": best_of(rewards, right, number) for number in numbers}
        if gradients:
            start = time.perf_counter()
            seeds = [seed + most * index for index in range(len(prompts))]
            noise = optimized(bundle, reward, prompts, seeds, gradients, **wishes)
            click.echo(f"optimising took {(time.perf_counter() - start) / len(prompts):.1f} s a picture")
            drawn = pipeline.generate(prompts, noise=noise, **wishes)
            shown = np.array([matches(np.asarray(each), prompt) for each, prompt in zip(drawn, prompts, strict=True)], float)
            rows[f"{gradients} gradients"] = judge.scores(drawn, prompts).astype(float), shown
    click.echo("| | reward | right | 95% interval |\n|---|---|---|---|")
    for name, (scored, shares) in rows.items():
        low, high = bootstrap(shares)
        click.echo(f"| {name} | {scored.mean():.2f} | {shares.mean():.1%} | {low:.1%} to {high:.1%} |")
    click.echo(f"| any of the {most} right | | {right.max(1).mean():.1%} | |")


if __name__ == "__main__":
    main()
