"""Scores pictures of the demo model against its 1000 evaluation prompts.

    python -m tools.score_demo                      # the diffusers pipeline
    python -m tools.score_demo --bundle DIR         # the exported bundle

Each picture is read by ``tools.check_scene``; a picture counts when it shows
all that its prompt states and nothing else.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from tools.captions import Prompt, Statement, evaluation_prompts, parse
from tools.check_scene import agrees, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusers import StableDiffusionXLPipeline

Pictures = Callable[[list[str], int], np.ndarray]
"""Draws prompts: (texts, seed) to uint8 (N, 64, 64, 3)."""

GROUPS = {"single": "single, seen pairs", "held-out": "single, held-out pairs", "two": "two objects"}
STEPS = 25
GUIDANCE = 3.0


def draw_with(pipeline: StableDiffusionXLPipeline, steps: int = STEPS, guidance: float = GUIDANCE) -> Pictures:
    """Wraps a diffusers pipeline; picture i of a call depends on seed + i alone."""
    import torch  # noqa: PLC0415 - a bundle is scored without torch

    def pictures(prompts: list[str], seed: int) -> np.ndarray:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
        drawn = pipeline(
            prompts,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="np",
        ).images
        return np.round(drawn * 255).astype(np.uint8)

    return pictures


@contextmanager
def from_diffusers(folder: Path, steps: int, guidance: float) -> Iterator[Pictures]:
    """Opens the recipe's folder with diffusers, on the processor in float32."""
    import torch  # noqa: PLC0415 - a bundle is scored without torch
    from diffusers import StableDiffusionXLPipeline  # noqa: PLC0415 - as above

    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    yield draw_with(pipeline, steps, guidance)


@contextmanager
def from_bundle(path: Path) -> Iterator[Pictures]:
    """Opens an exported bundle with this project's runtime."""
    from engines.pipeline import Pipeline  # noqa: PLC0415 - the recipe is scored without the runtime

    with Pipeline.open(path) as pipeline:

        def pictures(prompts: list[str], seed: int) -> np.ndarray:
            drawn = pipeline.generate(prompts, seed=seed)
            return np.stack([np.asarray(image.convert("RGB")) for image in drawn])

        yield pictures


def complaint(picture: np.ndarray, statement: Statement) -> str | None:
    """Why a picture does not show what is stated, in a few words; None if it does."""
    reading = read(picture)
    if agrees(reading, statement):
        return None
    if reading.fault is not None:
        return reading.fault.split(" (")[0]
    if len(reading.objects) != len(statement.objects):
        return "wrong number of objects"
    if statement.background not in {None, reading.background}:
        return "wrong background"
    shown = sorted((seen.colour, seen.shape) for seen in reading.objects)
    if shown != sorted((colour, shape) for _, colour, shape in statement.objects):
        return "wrong colour or shape"
    return "wrong size or relation"


def _interval(right: int, total: int) -> tuple[float, float]:
    """Wilson 95% interval of a share."""
    z = 1.96
    share = right / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    reach *= z / (1 + z * z / total)
    return round(centre - reach, 4), round(centre + reach, 4)


def score(pictures: Pictures, prompts: list[Prompt], seed: int = 0, batch: int = 50) -> dict[str, object]:
    """Draws all prompts and counts the pictures that show what is stated.

    Args:
        pictures: The picture source.
        prompts: Evaluation prompts.
        seed: Prompt i is drawn with a seed derived from this and i.
        batch: Prompts per call.

    Returns:
        Per group: right, total, share, 95% interval and complaints; the same
        for all single-object prompts under "all-single"; seconds spent.

    """
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    wrong: dict[str, Counter[str]] = {}
    started = time.monotonic()
    for start in range(0, len(prompts), batch):
        some = prompts[start : start + batch]
        drawn = pictures([prompt.text for prompt in some], seed + start)
        for prompt, picture in zip(some, drawn, strict=True):
            reason = complaint(picture, parse(prompt.text))
            groups = [prompt.group]
            if prompt.group != "two":
                groups.append("all-single")
            for group in groups:
                total[group] += 1
                right[group] += reason is None
                if reason is not None:
                    wrong.setdefault(group, Counter())[reason] += 1
    result: dict[str, object] = {"seconds": round(time.monotonic() - started, 1)}
    for group, count in total.items():
        result[group] = {
            "right": right[group],
            "total": count,
            "share": round(right[group] / count, 4),
            "interval_95": _interval(right[group], count),
            "complaints": dict(wrong.get(group, Counter()).most_common()),
        }
    return result


def table(result: dict[str, object]) -> str:
    """The scores as a Markdown table."""
    lines = ["| prompts | right | share | 95% interval |", "|---|---|---|---|"]
    for group, label in {"all-single": "single object", **GROUPS}.items():
        entry = result.get(group)
        if isinstance(entry, dict):
            low, high = entry["interval_95"]
            lines.append(f"| {label} | {entry['right']} / {entry['total']} | {entry['share']:.1%} | {low:.1%} to {high:.1%} |")
    return "\n".join(lines)


@click.command()
@click.option("--recipe", type=click.Path(path_type=Path), default=Path("recipes/demo"))
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--steps", default=STEPS, show_default=True)
@click.option("--guidance", default=GUIDANCE, show_default=True)
@click.option("--count", default=500, show_default=True, help="Prompts of each kind.")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch", default=50, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=None, help="JSON file.")
def main(
    recipe: Path,
    bundle: Path | None,
    steps: int,
    guidance: float,
    count: int,
    seed: int,
    batch: int,
    output: Path | None,
) -> None:
    """Scores the recipe, or a bundle, on the fixed evaluation prompts.

    Steps and guidance apply to the recipe only; a bundle carries its own.
    """
    opened: AbstractContextManager[Pictures]
    opened = from_bundle(bundle) if bundle else from_diffusers(recipe, steps, guidance)
    with opened as pictures:
        result = score(pictures, evaluation_prompts(count), seed, batch)
    click.echo(table(result))
    result |= {"source": str(bundle or recipe), "seed": seed}
    if bundle is None:
        result |= {"steps": steps, "guidance": guidance}
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
