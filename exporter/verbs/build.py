"""Verbs that make what did not exist: a bundle, a trained network, a reward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.verbs.options import ASSIGNMENTS, PATH

if TYPE_CHECKING:
    from exporter.stages.away import Cluster


@click.command("build")
@click.argument("recipe", type=PATH)
@click.option("-o", "--output", type=PATH, help="Folder of the bundle.  [default: bundles/<recipe's name>]")
@ASSIGNMENTS
@click.option("--dry-run", is_flag=True, help="Print the plan and what it needs; build nothing.")
@click.option("--check-reproducible", is_flag=True, help="Build every engine twice; both must be the same bytes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; the stages go to stderr.")
@click.option("--ray", "address", metavar="auto|local|ADDRESS", help="Build the engines on the machines of a Ray cluster.")
@click.option("--exchange", metavar="URL", help="Where they hand files over (fsspec's), if they do not see the same paths.")
def build_command(
    recipe: Path, output: Path | None, assignments: tuple[str, ...], address: str | None, exchange: str | None, **flags: bool
) -> None:
    """Turn a recipe into a checked bundle.

    A recipe is a YAML file, or a name of `t2iexport list recipes`.
    """
    from engines.errors import UnsupportedError
    from exporter.recipe.schema import Recipe
    from exporter.report import console, describe, progress
    from exporter.stages.store import Store
    from exporter.stages.vendors import located

    if exchange and not address:
        raise UnsupportedError("--exchange is for the machines of a cluster. Name one by --ray, or leave it out.")
    chosen, dry = Recipe.load(recipe, assignments), flags["dry_run"]
    with (
        located(chosen),
        progress.stage_lines(error=flags["as_json"]) as lines,
        _cluster(None if dry else address, exchange) as cluster,
    ):
        store = Store(say=lines.say)
        if dry:
            from exporter.stages.plan import Plan

            plan = Plan(chosen)
            plan.refuse()
            console.show(describe.dry_run(plan, store), as_json=flags["as_json"])
            return
        from exporter.build import build
        from exporter.parity import table

        out = output or Path("bundles") / chosen.name
        bundle, verdicts = build(chosen, out, store, lines, reproducible=flags["check_reproducible"], cluster=cluster)
    reused = sum(row["cached"] for row in lines.rows)
    if flags["as_json"]:
        content = {"bundle": str(out), "stages": lines.rows, "verdicts": console.verdict_rows(verdicts)}
        console.show(content | {"notes": list(bundle.manifest.notes)}, as_json=True)
        return
    click.echo(f"\n{table.table(verdicts)}" if verdicts else "")
    for note in bundle.manifest.notes:
        click.echo(note)
    size = sum(file.size for file in bundle.manifest.files.values()) / 1e6
    click.echo(f"\n{out}: {size:.1f} MB; {reused} of {len(lines.rows)} stages were reused")


@contextmanager
def _cluster(address: str | None, exchange: str | None) -> Iterator[Cluster | None]:
    """The cluster of an address; None without one."""
    if address is None:
        yield None
        return
    from exporter.cluster.exchange import Exchange
    from exporter.cluster.ray_runner import RayRunner
    from exporter.stages.away import Cluster

    handed = Exchange(exchange) if exchange else None
    with RayRunner(address) as runner:
        yield Cluster(runner, handed)


@click.command("distill")
@click.argument("recipe", type=PATH)
@ASSIGNMENTS
def distill_command(recipe: Path, assignments: tuple[str, ...]) -> None:
    """Train what a recipe's passes ask for; build finds it."""
    from exporter import build
    from exporter.recipe.schema import Recipe
    from exporter.report import progress
    from exporter.stages.store import Store
    from exporter.stages.vendors import located

    chosen = Recipe.load(recipe, assignments)
    with located(chosen), progress.stage_lines(error=True) as lines:
        trained = build.distill(chosen, Store(say=lines.say), lines)
    for part, folder in trained.items():
        click.echo(f"{part}: {folder}")


@click.command("reward")
@click.argument("model")
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the reward; its name is the reward's.")
@click.option("--processor", help="Where tokenizer and image processor are, if not with the model.")
@click.option("--revision", help="Of the model, on the hub.")
@click.option("--target", "targets", multiple=True, default=["onnxruntime"], show_default=True, help="Whose engine; repeatable.")
def reward_command(model: str, output: Path, processor: str | None, revision: str | None, targets: tuple[str, ...]) -> None:
    """Make what `generate --best-of` chooses by.

    MODEL is CLIP, PickScore or another pair of encoders of pictures and texts, or ImageReward (a folder, a hub id, or the file
    ImageReward.pt); or a Python file of your own.
    """
    from exporter.reward import folder

    about, unit = folder.make(model, output, targets, processor=processor, revision=revision)
    click.echo(f"{output}: off by {about.off:.2g} at most, {unit}")
