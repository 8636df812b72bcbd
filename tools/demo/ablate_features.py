"""KOALA's ablation on the demo: which features a cut UNet learns most from.

    python -m tools.demo.ablate_features recipes/demo-koala-700m.yaml --steps 4000

Every training is `t2iexport distill` of the recipe with other features, seeds and steps, several at once; each is scored as
`tools.demo.score` does. Beside them stand the source, the cut without any training, and the same network trained from random
weights by the task alone. Trainings that are in the store are found there. The numbers go to a table, the table to a picture.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tools.demo import write_scenes

FEATURES = ("last_of_stage", "self_attention", "cross_attention", "resnet")
SOURCE, CUT, SCRATCH, NONE = "source", "cut, not trained", "from scratch", "no features"
_COMMAND = "from exporter.cli import main; main()"
_INK, _BLUE, _GRAY = "#1f2933", "#1d4e89", "#8a94a0"


@dataclass(frozen=True)
class Job:
    """One network to make and score.

    Attributes:
        row: its row in the table.
        seed: of its training, and of its random weights.
        passes: of the UNet, as a recipe has them.

    """

    row: str
    seed: int
    passes: Sequence[dict[str, Any]]


def jobs(passes: Sequence[dict[str, Any]], features: Sequence[str], seeds: int, changes: dict[str, Any]) -> Iterator[Job]:
    """All networks, the trainings first; `passes` are the recipe's prune and distill, `changes` go into every distill."""
    prune, distill = (dict(step[name]) for step, name in zip(passes, ("prune", "distill"), strict=True))
    distill |= changes
    weights = distill.get("weights", {})
    for seed in range(seeds):
        for row in features:
            yield Job(row, seed, [{"prune": prune}, {"distill": distill | {"features": row, "seed": seed}}])
        yield Job(NONE, seed, [{"prune": prune}, {"distill": distill | {"features": None, "seed": seed}}])
        alone = {"features": None, "weights": {**weights, "task": 1.0, "output": 0.0, "feature": 0.0}, "seed": seed}
        yield Job(SCRATCH, seed, [{"prune": prune | {"weights": "random", "seed": seed}}, {"distill": distill | alone}])
    yield Job(CUT, 0, [{"prune": prune}])
    yield Job(SOURCE, 0, [])


def run(job: Job, recipe: Path, processes: int, device: str | None, count: int) -> dict[str, Any]:
    """Train and score one network in processes of their own; its row."""
    setting = f"--set=components.unet.passes={json.dumps(job.passes)}"
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(processes)}
    start = time.monotonic()
    if any("distill" in step for step in job.passes):
        _call(job, [sys.executable, "-c", _COMMAND, "distill", str(recipe), setting], threads)
    trained = time.monotonic() - start
    with tempfile.TemporaryDirectory() as folder:
        line = Path(folder) / "score.jsonl"
        where = [] if device is None else ["--device", device]
        options = ["--recipe", str(recipe), setting, "--json", str(line), "--count", str(count), *where]
        _call(job, [sys.executable, "-m", "tools.demo.score", *options, "--processes", str(processes)], threads)
        found = json.loads(line.read_text())
    distill = job.passes[-1].get("distill", {}) if job.passes else {}
    return {
        "features": job.row,
        "seed": job.seed,
        "parameters": found["parameters"]["unet"],
        "steps": distill.get("steps", 0),
        "batch": distill.get("batch", 0),
        "right": found["all"]["right"],
        "total": found["all"]["total"],
        "share": found["all"]["share"],
        **{name: found[group]["share"] for name, group in (("single", "all-single"), ("held_out", "held-out"), ("two", "two"))},
        "seconds": round(trained),
        "device": found["device"],
    }


def _call(job: Job, command: Sequence[str], threads: dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    if done.returncode:
        raise RuntimeError(
            f"{job.row}, seed {job.seed}: {' '.join(command[:4])} ended with {done.returncode}\n{done.stderr[-1500:]}"
        )


def write(rows: Iterable[dict[str, Any]], table: Path, order: Sequence[str]) -> None:
    """Write the table, sorted by feature and seed."""
    found = sorted(rows, key=lambda row: (order.index(row["features"]), int(row["seed"])))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Every seed as a point, means as strokes, the source and the untrained cut as lines."""
    names = [name for name in dict.fromkeys(row["features"] for row in rows) if name not in {SOURCE, CUT}]
    means = {name: sum(shares := _shares(rows, name)) / len(shares) for name in names}
    names.sort(key=lambda name: -means[name])
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        shares = _shares(rows, name)
        axes.plot([place] * len(shares), shares, "o", color=_BLUE, alpha=0.75, markersize=8, zorder=3)
        axes.plot([place - 0.22, place + 0.22], [means[name]] * 2, color=_INK, linewidth=2.5, zorder=2)
        axes.annotate(f"{means[name]:.1%}", (place + 0.26, means[name]), color=_INK, va="center", fontsize=9)
    for name in (SOURCE, CUT):
        for share in _shares(rows, name):
            axes.axhline(share, color=_GRAY, linewidth=1, linestyle="--", zorder=1)
            axes.annotate(f"{name}: {share:.1%}", (-0.47, share), color=_GRAY, ha="left", va="bottom", fontsize=9)
    axes.set_xticks(range(len(names)), [name.replace("_", "\n", 1) for name in names])
    axes.set_xlim(-0.5, len(names) - 0.35)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    trained = next(row for row in rows if row["features"] == names[0])
    axes.set_ylabel(f"right pictures of {trained['total']}")
    axes.set_title(f"{trained['steps']} steps of batch {trained['batch']}; a point is a seed", loc="left", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    return figure


def _shares(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [float(row["share"]) for row in rows if row["features"] == name]


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, exists=True))
@click.option("--features", default=",".join(FEATURES), show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", type=int, help="Of every training.  [default: the recipe's]")
@click.option("--batch", type=int, help="Of every training.  [default: the recipe's]")
@click.option("--set", "changes", multiple=True, metavar="OPTION=VALUE", help="Of every distill pass, as YAML: replay=true.")
@click.option(
    "--scenes", type=click.Path(path_type=Path), help="Folder of pictures; written if it is absent.  [default: the recipe's]"
)
@click.option("--pictures", default=20_000, show_default=True, help="Scenes to write.")
@click.option("--jobs", "parallel", default=1, show_default=True, help="Trainings at once.")
@click.option("--device", help="That scores.  [default: cuda where there is one, else cpu]")
@click.option("--count", default=500, show_default=True, help="Prompts of each kind.")
@click.option("--table", type=click.Path(path_type=Path), default=Path("docs/ablation.csv"), show_default=True)
@click.option("--picture", type=click.Path(path_type=Path), default=Path("docs/images/ablation.png"), show_default=True)
@click.option("--draw-only", is_flag=True, help="Draw the table that is there.")
def main(
    *,
    recipe: Path,
    features: str,
    seeds: int,
    steps: int | None,
    batch: int | None,
    changes: tuple[str, ...],
    scenes: Path | None,
    pictures: int,
    parallel: int,
    device: str | None,
    count: int,
    table: Path,
    picture: Path,
    draw_only: bool,
) -> None:
    """Train, score, write the table after every network, and draw it."""
    if draw_only:
        with table.open(newline="", encoding="utf-8") as file:
            draw(list(csv.DictReader(file))).savefig(picture, dpi=130)
        return
    passes, wished = _template(recipe), _wished(changes, {"steps": steps, "batch": batch})
    if scenes is not None:
        wished["data"] = str(scenes.resolve())
    folder = Path(wished.get("data", passes[1]["distill"].get("data")))
    processors = len(os.sched_getaffinity(0))
    if not folder.exists():
        write_scenes.write(folder, pictures, processes=processors)
        click.echo(f"{pictures} scenes: {folder}")
    todo = list(jobs(passes, features.split(","), seeds, wished))
    share = max(1, processors // parallel)
    rows, failed, order = [], [], [*dict.fromkeys(job.row for job in todo)]
    with ThreadPoolExecutor(parallel) as pool:
        for each in as_completed([pool.submit(run, job, recipe, share, device, count) for job in todo]):
            try:
                row = each.result()
            except RuntimeError as error:
                failed.append(str(error))
                click.echo(f"failed: {error}", err=True)
                continue
            rows.append(row)
            click.echo(f"{row['features']:<18} seed {row['seed']}  {row['share']:>7.1%}  trained in {row['seconds']} s")
            write(rows, table, order)
    if rows:
        draw(rows).savefig(picture, dpi=130)
        click.echo(f"{table}, {picture}")
    if failed:
        raise click.ClickException(f"{len(failed)} of {len(todo)} failed; what was trained is in the store, so run it again")


def _template(recipe: Path) -> list[dict[str, Any]]:
    from exporter.recipe.schema import Recipe  # noqa: PLC0415 - a table is drawn without the exporter

    passes = Recipe.load(recipe).components["unet"].passes
    if [next(iter(step)) for step in passes] != ["prune", "distill"]:
        raise click.ClickException(f"{recipe}: components.unet.passes must be prune, then distill")
    return [dict(step) for step in passes]


def _wished(changes: Sequence[str], given: dict[str, Any]) -> dict[str, Any]:
    from ruamel.yaml import YAML  # noqa: PLC0415 - a table is drawn without the exporter

    found = {name: value for name, value in given.items() if value is not None}
    for change in changes:
        name, _, value = change.partition("=")
        found[name] = YAML(typ="safe").load(value)
    return found


if __name__ == "__main__":
    main()
