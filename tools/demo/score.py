"""Scores pictures of the demo model against its 1000 evaluation prompts.

    python -m tools.demo.score                                # the demo as diffusers runs it
    python -m tools.demo.score --recipe recipes/NAME.yaml     # with the recipe's passes (first: t2iexport distill), its sampler
    python -m tools.demo.score --recipe RECIPE --unet DIR     # with another network in its place; --vae as well
    python -m tools.demo.score --bundle DIR                   # the exported bundle
    python -m tools.demo.score --bundle DIR --lora stars      # with the demo's LoRAs, which change what is right

Each picture is read by ``tools.demo.check_scene``; a picture counts when it shows
all that its prompt states and nothing else.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click
import numpy as np

from exporter.parity.intervals import wilson
from tools.demo.captions import Prompt, Statement, evaluation_prompts, parse
from tools.demo.changes import CHANGES, NOTHING, Change, lora_file, together
from tools.demo.check_scene import agrees, read
from tools.demo.pictures import GUIDANCE, STEPS, Pictures, Source, best_device, from_bundle, from_diffusers, from_recipe

GROUPS = {"single": "single, seen pairs", "held-out": "single, held-out pairs", "two": "two objects"}
_CHUNK = 25
"""Pictures that a process reads at a time."""


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


def _complaints(pictures: np.ndarray, texts: list[str], change: Change) -> list[str | None]:
    return [complaint(picture, change.statement(parse(text))) for picture, text in zip(pictures, texts, strict=True)]


def score(
    pictures: Pictures, prompts: list[Prompt], seed: int = 0, batch: int = 50, processes: int = 1, change: Change = NOTHING
) -> dict[str, object]:
    """Draws all prompts and counts the pictures that show what is stated.

    Args:
        pictures: The picture source.
        prompts: Evaluation prompts.
        seed: Prompt i is drawn with a seed derived from this and i.
        batch: Prompts per call.
        processes: How many read pictures, while others are drawn.
        change: What is always so in the pictures, whatever their prompts state.

    Returns:
        Per group: right, total, share, 95% interval and complaints; the same
        for all single-object prompts under "all-single" and for all under
        "all"; seconds spent in all, and until the last picture was drawn.

    """
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    wrong: dict[str, Counter[str]] = {}
    started = time.monotonic()
    # Not forked: the processes need nothing of a torch that may be at work here.
    spawn = multiprocessing.get_context("spawn")
    readers = ProcessPoolExecutor(processes, mp_context=spawn) if processes > 1 else nullcontext()
    with readers as pool:
        found = []
        for start in range(0, len(prompts), batch):
            texts = [prompt.text for prompt in prompts[start : start + batch]]
            drawn = pictures(texts, seed + start)
            for first in range(0, len(texts), _CHUNK):
                some = drawn[first : first + _CHUNK], texts[first : first + _CHUNK], change
                found.append(pool.submit(_complaints, *some).result if pool else lambda some=some: _complaints(*some))
        drawing = time.monotonic() - started
        reasons = [reason for each in found for reason in each()]
    for prompt, reason in zip(prompts, reasons, strict=True):
        for group in (prompt.group, "all", *(["all-single"] if prompt.group != "two" else [])):
            total[group] += 1
            right[group] += reason is None
            if reason is not None:
                wrong.setdefault(group, Counter())[reason] += 1
    result: dict[str, object] = {"seconds": round(time.monotonic() - started, 1), "drawing_seconds": round(drawing, 1)}
    for group, count in total.items():
        result[group] = {
            "right": right[group],
            "total": count,
            "share": round(right[group] / count, 4),
            "interval_95": tuple(round(end, 4) for end in wilson(right[group], count)),
            "complaints": dict(wrong.get(group, Counter()).most_common()),
        }
    return result


def table(result: dict[str, object]) -> str:
    """The scores as a Markdown table."""
    lines = ["| prompts | right | share | 95% interval |", "|---|---|---|---|"]
    for group, label in {"all-single": "single object", **GROUPS, "all": "all"}.items():
        entry = result.get(group)
        if isinstance(entry, dict):
            low, high = entry["interval_95"]
            lines.append(f"| {label} | {entry['right']} / {entry['total']} | {entry['share']:.1%} | {low:.1%} to {high:.1%} |")
    return "\n".join(lines)


def opened(
    recipe: Path,
    bundle: Path | None,
    steps: int | None,
    guidance: float | None,
    assignments: tuple[str, ...] = (),
    *,
    unet: Path | None = None,
    vae: Path | None = None,
    device: str = "cpu",
    loras: Sequence[Path] = (),
    pag: float | None = None,
) -> AbstractContextManager[Source]:
    """What the options name: a bundle, a recipe's YAML, or a pipeline's folder, with other networks in place of its own."""
    if bundle:
        return from_bundle(bundle, steps, guidance, loras, pag)
    if recipe.suffix in {".yaml", ".yml"}:
        return from_recipe(recipe, assignments, steps, guidance, unet=unet, vae=vae, device=device)
    steps = STEPS if steps is None else steps
    guidance = GUIDANCE if guidance is None else guidance
    return from_diffusers(recipe, steps, guidance, unet=unet, vae=vae, device=device)


@click.command()
@click.option("--recipe", type=click.Path(path_type=Path), default=Path("recipes/demo"), help="A recipe's YAML, or a pipeline.")
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Change the recipe's YAML.")
@click.option("--unet", type=click.Path(path_type=Path, exists=True), help="Folder of another denoiser.")
@click.option("--vae", type=click.Path(path_type=Path, exists=True), help="Folder of another VAE.")
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option(
    "--lora",
    "loras",
    multiple=True,
    type=click.Choice(list(CHANGES)),
    help="Of recipes/demo-loras, for a bundle that takes some.",
)
@click.option("--steps", type=int, help="[default: the first of recipe or bundle; 25 for a pipeline]")
@click.option("--guidance", type=float, help="[default: that of recipe or bundle; 3 for a pipeline]")
@click.option("--pag", type=float, help="Scale of perturbed attention, of a bundle that has it.  [default: that of the bundle]")
@click.option("--count", default=500, show_default=True, help="Prompts of each kind.")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch", type=int, help="[default: 500 on a GPU, else 50]")
@click.option("--device", help="[default: cuda where there is one, else cpu]")
@click.option("--processes", default=len(os.sched_getaffinity(0)), help="That read pictures.  [default: one a processor]")
@click.option("--output", type=click.Path(path_type=Path), default=None, help="JSON file.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), default=None, help="Append one line of JSON.")
def main(
    *,
    recipe: Path,
    assignments: tuple[str, ...],
    unet: Path | None,
    vae: Path | None,
    bundle: Path | None,
    loras: tuple[str, ...],
    steps: int | None,
    guidance: float | None,
    pag: float | None,
    count: int,
    seed: int,
    batch: int | None,
    device: str | None,
    processes: int,
    output: Path | None,
    json_file: Path | None,
) -> None:
    """Scores a pipeline, a recipe or a bundle on the fixed evaluation prompts."""
    where = "cpu" if bundle else device or best_device()
    if loras and not bundle:
        raise click.UsageError("--lora is for a bundle; a recipe names its own in model.loras")
    if pag is not None and not bundle:
        raise click.UsageError("--pag is for a bundle; a recipe names its own in sampler.guidance.pag")
    files = [lora_file(name) for name in loras]
    with opened(recipe, bundle, steps, guidance, assignments, unet=unet, vae=vae, device=where, loras=files, pag=pag) as source:
        batch = batch or (50 if where == "cpu" else 500)
        result = score(source.draw, evaluation_prompts(count), seed, batch, processes, together(*loras))
    click.echo(table(result))
    result |= {"source": str(bundle or recipe), "seed": seed, **source.facts}
    result |= {"set": list(assignments)} if assignments else {}
    result |= {"loras": list(loras)} if loras else {}
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2) + "\n")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        with json_file.open("a") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
