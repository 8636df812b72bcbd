"""Verbs that measure, and put figures side by side: of a bundle, of two, of a sweep's points."""

from __future__ import annotations

from pathlib import Path

import click

from engines.disk import require_file, writing
from exporter.verbs.options import PATH


@click.command("bench")
@click.argument("bundle", type=PATH)
@click.option(
    "--against",
    multiple=True,
    metavar="NAME",
    help="Compare with diffusers, diffusers-bf16, diffusers-compile, another backend of the bundle, or another bundle's folder; "
    "repeat for several.",
)
@click.option("--batch", "batches", default="1", show_default=True, metavar="N,N", help="Pictures per run, one figure each.")
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Rounds that count.")
@click.option("--steps", type=int, help="Of the sampler; the bundle says which it has.")
@click.option("--operators", "profile", is_flag=True, help="Also show which operators and kernels each network's time goes to.")
@click.option("--json", "json_file", type=PATH, help="Also write every figure and the machine as JSON.")
@click.option("--plot", "plot_file", type=PATH, help="Also draw where the time goes: .png, .svg or .pdf.")
def bench_command(
    bundle: Path,
    against: tuple[str, ...],
    batches: str,
    repeats: int,
    steps: int | None,
    json_file: Path | None,
    plot_file: Path | None,
    *,
    profile: bool,
) -> None:
    """Measure where an image's time goes, beside other tools.

    Rivals draw on the same noise, in turns; a picture of each is compared.
    """
    from exporter.bench import figures
    from exporter.bench.run import bench
    from exporter.report import console

    sizes = batches.split(",")
    if not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise click.BadParameter(f"{batches!r} is not a list of batches; write 1,4.", param_hint="--batch")
    if plot_file:
        figures.require_plot()
        if plot_file.suffix not in {".png", ".svg", ".pdf"}:
            raise click.BadParameter(f"{plot_file} must end in .png, .svg or .pdf.", param_hint="--plot")
    for file in filter(None, (json_file, plot_file)):
        require_file(file)
    progress = console.console(error=True)
    sizes = [int(size) for size in sizes]
    report = bench(bundle, against, batches=sizes, repeats=repeats, steps=steps, profile=profile, say=progress.print)
    if json_file:
        console.write_json(json_file, figures.content(report))
    if plot_file:
        figures.plot(report, plot_file)
    console.show(figures.tables(report))


@click.command("diff")
@click.argument("one", type=PATH)
@click.argument("other", type=PATH)
@click.option("-o", "--output", type=PATH, metavar="FILE.png", help="Also write both bundles' pictures beside each other.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="Timed, of each in turn.")
def diff_command(one: Path, other: Path, output: Path | None, rounds: int) -> None:
    """Show two bundles side by side.

    Compares recipe, sizes, milliseconds and decibels, each at its own defaults.
    """
    from exporter.report import console
    from exporter.sweep import diff

    if output:
        require_file(output)
    facts, pictures = diff.diff(one, other, rounds)
    if output:
        with writing(output, f"writing {output}"):
            diff.sheet(pictures).save(output)
    console.show(facts)


@click.command("sweep")
@click.argument("sweep", type=PATH)
@click.option("-o", "--output", default="report", show_default=True, help="Folder of results and report, or its URL (fsspec's).")
@click.option("--ray", "address", metavar="auto|local|ADDRESS", help="Work on a Ray cluster, whose machines see the same files.")
@click.option("--yes", is_flag=True, help="More than 10,000 points are meant.")
def sweep_command(sweep: Path, output: str, address: str | None, *, yes: bool) -> None:
    """Build and measure a sweep's points, and write a report."""
    from exporter.cluster.ray_runner import RayRunner
    from exporter.report import console
    from exporter.stages.store import Store
    from exporter.sweep import report, run, spec
    from exporter.sweep.local_runner import LocalRunner
    from exporter.sweep.remote import RemoteFolder

    asked, screen, remote = spec.load(sweep), console.console(error=True), RemoteFolder.of(output)
    folder = remote.local if remote else Path(output)
    with RayRunner(address) if address else LocalRunner() as runner:
        swept = run.sweep(asked, folder, runner, Store(say=screen.print), screen.print, many=yes, remote=remote)
    found = report.write(asked, swept, folder)
    if remote:
        found["report"] = remote.send_report()
    console.show(found)
