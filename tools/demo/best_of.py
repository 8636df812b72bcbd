"""Scores best-of-N on the demo: of N pictures of a prompt the one that a reward chooses, and whether the checker finds it right.

    python -m tools.demo.best_of --bundle bundles/demo --reward rewards/scenes --steps 10 --guidance 1

Each prompt is drawn --most times. Best-of-N is the mean over as many groups of N as there are, so all numbers are of the same
pictures. `any right` is what a choice could reach at most.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from engines.pipeline import Pipeline
from engines.reward import Reward
from exporter.parity.intervals import bootstrap
from tools.demo.captions import evaluation_prompts
from tools.demo.check_scene import matches


def best_of(rewards: np.ndarray, right: np.ndarray, number: int) -> np.ndarray:
    """Share of right ones among the best of each `number`, of every prompt.

    Args:
        rewards: (prompts, drawn).
        right: 0 or 1, as rewards.
        number: a divisor of drawn.

    """
    groups = rewards.reshape(len(rewards), -1, number)
    chosen = groups.argmax(2)[..., None]
    return np.take_along_axis(right.reshape(groups.shape), chosen, 2).mean((1, 2))


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--reward", type=click.Path(path_type=Path), required=True, help="Folder, as t2iexport reward makes one.")
@click.option("--steps", type=int, help="Of the sampler.")
@click.option("--guidance", type=float, help="Scale; 1 is without.")
@click.option("--prompts", "count", default=60, show_default=True, help="Half of one object, half of two.")
@click.option("--most", default=16, show_default=True, help="Pictures of each prompt: 4, 16 …")
@click.option("--seed", default=0, show_default=True)
def main(bundle: Path, reward: Path, steps: int | None, guidance: float | None, count: int, most: int, seed: int) -> None:
    """Print the shares as a Markdown table, each with its 95% interval over the prompts."""
    prompts = [each.text for each in evaluation_prompts(count // 2)]
    rewards, right = np.zeros((len(prompts), most)), np.zeros((len(prompts), most))
    with Pipeline.open(bundle) as pipeline, Reward.open(reward) as judge:
        judging, start = 0.0, time.perf_counter()
        for index, prompt in enumerate(prompts):
            how = {"seed": seed + most * index, "steps": steps, "guidance_scale": guidance}
            drawn = pipeline.generate([prompt] * most, **how)
            before = time.perf_counter()
            rewards[index] = judge.scores(drawn, [prompt] * most)
            judging += time.perf_counter() - before
            right[index] = [matches(np.asarray(each), prompt) for each in drawn]
            click.echo(f"\r{index + 1} of {len(prompts)}", err=True, nl=index + 1 == len(prompts))
    click.echo(f"judging took {judging / (time.perf_counter() - start):.1%} of the time")
    click.echo("| | right | 95% interval |\n|---|---|---|")
    numbers = [4**power for power in range(10) if 4**power <= most]
    rows = {f"best of {number}": best_of(rewards, right, number) for number in numbers} | {"any right": right.max(1)}
    for name, shares in rows.items():
        low, high = bootstrap(shares)
        click.echo(f"| {name} | {shares.mean():.1%} | {low:.1%} to {high:.1%} |")


if __name__ == "__main__":
    main()
