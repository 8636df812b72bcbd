"""The command line: parse, call, print. New knobs go into the recipe; `--set` is the one escape."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from engines import exits
from engines.__main__ import generate
from engines.disk import refusal, require_file, writing
from engines.errors import MissingDependency, ParityError, RecipeError, T2IError
from engines.serve.command import serve
from exporter.noise.command import optimize_noise

if TYPE_CHECKING:
    from engines.triton.repository import Backend
    from exporter.layouts.convert import Layout
    from exporter.recipe.schema import Recipe

#: What the extra [compile] installs, by the name that is imported.
_COMPILE = {"diffusers", "huggingface_hub", "onnx", "onnx_ir", "onnxscript", "ruamel", "safetensors", "torch"}
_COMPILE |= {"transformers", "accelerate", "polygraphy"}
_PATH = click.Path(path_type=Path)
_KINDS = ["families", "passes", "formats", "backends", "samplers", "recipes", "architectures", "pipelines"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="t2iexport")
def verbs() -> None:
    """Compile text-to-image diffusion models into checked bundles that run without torch."""


verbs.add_command(generate)
verbs.add_command(serve)
verbs.add_command(optimize_noise)


@verbs.command("build")
@click.argument("recipe", type=_PATH)
@click.option("-o", "--output", type=_PATH, help="Folder of the bundle.  [default: bundles/<recipe's name>]")
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Change the recipe: sampler.steps=[8].")
@click.option("--dry-run", is_flag=True, help="Print the plan and what it needs; build nothing.")
@click.option("--check-reproducible", is_flag=True, help="Build every engine twice; both must be the same bytes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; the stages go to stderr.")
def _build(recipe: Path, output: Path | None, assignments: tuple[str, ...], **flags: bool) -> None:
    """Turn a recipe, a YAML file or a name of `t2iexport list recipes`, into a checked bundle."""
    from exporter.recipe.schema import Recipe
    from exporter.report import console, describe, progress
    from exporter.stages.store import Store

    chosen = Recipe.load(recipe, assignments)
    with _located(chosen), progress.stage_lines(error=flags["as_json"]) as lines:
        store = Store(say=lines.say)
        if flags["dry_run"]:
            from exporter.stages.plan import Plan

            plan = Plan(chosen)
            plan.refuse()
            _print(describe.dry_run(plan, store), as_json=flags["as_json"])
            return
        from exporter.build import build
        from exporter.parity import table

        out = output or Path("bundles") / chosen.name
        bundle, verdicts = build(chosen, out, store, lines, reproducible=flags["check_reproducible"])
    reused = sum(row["cached"] for row in lines.rows)
    if flags["as_json"]:
        content = {"bundle": str(out), "stages": lines.rows, "verdicts": console.verdict_rows(verdicts)}
        _print(content | {"notes": list(bundle.manifest.notes)}, as_json=True)
        return
    click.echo(f"\n{table.table(verdicts)}" if verdicts else "")
    for note in bundle.manifest.notes:
        click.echo(note)
    size = sum(file.size for file in bundle.manifest.files.values()) / 1e6
    click.echo(f"\n{out}: {size:.1f} MB; {reused} of {len(lines.rows)} stages were reused")


@verbs.command("sweep")
@click.argument("sweep", type=_PATH)
@click.option("-o", "--output", type=_PATH, default=Path("report"), show_default=True, help="Folder of results and report.")
@click.option("--ray", "address", metavar="auto|local|ADDRESS", help="Work on a Ray cluster, whose machines see the same files.")
@click.option("--yes", is_flag=True, help="More than 10,000 points are meant.")
def _sweep(sweep: Path, output: Path, address: str | None, *, yes: bool) -> None:
    """Build and measure every point of a sweep's file, and write a report that compares them."""
    from exporter.report import console
    from exporter.stages.store import Store
    from exporter.sweep import report, run, spec
    from exporter.sweep.ray_runner import RayRunner
    from exporter.sweep.runner import LocalRunner

    asked, screen = spec.load(sweep), console.console(error=True)
    with RayRunner(address) if address else LocalRunner() as runner:
        swept = run.sweep(asked, output, runner, Store(say=screen.print), screen.print, many=yes)
    found = report.write(asked, swept, output)
    console.show(found)


@verbs.command("diff")
@click.argument("one", type=_PATH)
@click.argument("other", type=_PATH)
@click.option("-o", "--output", type=_PATH, metavar="FILE.png", help="Also write both bundles' pictures beside each other.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="Timed, of each in turn.")
def _diff(one: Path, other: Path, output: Path | None, rounds: int) -> None:
    """Show two bundles side by side: recipe, sizes, milliseconds, decibels; each at its own defaults."""
    from exporter.report import console
    from exporter.sweep import diff

    if output:
        require_file(output)
    facts, pictures = diff.diff(one, other, rounds)
    if output:
        with writing(output, f"writing {output}"):
            diff.sheet(pictures).save(output)
    console.show(facts)


@verbs.command("distill")
@click.argument("recipe", type=_PATH)
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Change the recipe, as for build.")
def _distill(recipe: Path, assignments: tuple[str, ...]) -> None:
    """Train what a recipe's distill passes ask for; build finds it."""
    from exporter import build
    from exporter.recipe.schema import Recipe
    from exporter.report import progress
    from exporter.stages.store import Store

    chosen = Recipe.load(recipe, assignments)
    with _located(chosen), progress.stage_lines(error=True) as lines:
        trained = build.distill(chosen, Store(say=lines.say), lines)
    for part, folder in trained.items():
        click.echo(f"{part}: {folder}")


@verbs.command("check")
@click.argument("bundle", type=_PATH)
@click.option("--backend", help="Only this one.  [default: every backend that opens here]")
@click.option("--json", "json_file", type=_PATH, help="Also write the verdicts as JSON.")
@click.option("--junit", "junit_file", type=_PATH, help="Also write the verdicts as JUnit XML.")
@click.option("--no-receipt", is_flag=True, help="Only read the bundle; keep no verdicts in it.")
def _check(bundle: Path, backend: str | None, json_file: Path | None, junit_file: Path | None, *, no_receipt: bool) -> None:
    """Hold a bundle's engines to its source model, on the same noise."""
    from exporter.build import check
    from exporter.parity import table
    from exporter.report import console, progress

    for file in filter(None, (json_file, junit_file)):
        require_file(file)
    with progress.stage_lines(error=True):
        verdicts = check(bundle, backend, lambda line: click.echo(f"note: {line}", err=True), receipt=not no_receipt)
    if json_file:
        console.write_json(json_file, {"bundle": str(bundle), "verdicts": console.verdict_rows(verdicts)})
    if junit_file:
        console.write_junit(junit_file, bundle.resolve().name, verdicts)
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        blame = "The first line that fails names the part and the stage to blame."
        raise ParityError(f"{table.table(verdicts)}\n\n{len(failed)} of {len(verdicts)} comparisons are out of limits. {blame}")
    click.echo(table.table(verdicts))


@verbs.command("debug")
@click.argument("bundle", type=_PATH)
@click.argument("part")
@click.option("--backend", help="Whose engine to look into.  [default: the first that the part has]")
@click.option("-o", "--output", type=_PATH, help="Folder of what repeats the fault.  [default: debug/<bundle>/<part>]")
def _debug(bundle: Path, part: str, backend: str | None, output: Path | None) -> int:
    """Find the layer of a part that is out of limits, and write the smallest graph that shows it."""
    from exporter.build import debug
    from exporter.report import fault, progress
    from exporter.stages.store import Store

    folder = output or Path("debug") / bundle.resolve().name / part
    with progress.stage_lines(error=True) as lines:
        report = debug(bundle, part, backend, folder, Store(say=lines.say), lines)
    click.echo(fault.text(report))
    return ParityError.exit_code if report.fault else 0


@verbs.command("bench")
@click.argument("bundle", type=_PATH)
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
@click.option("--json", "json_file", type=_PATH, help="Also write every figure and the machine as JSON.")
@click.option("--plot", "plot_file", type=_PATH, help="Also draw where the time goes: .png, .svg or .pdf.")
def _bench(
    bundle: Path,
    against: tuple[str, ...],
    batches: str,
    repeats: int,
    steps: int | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measure where a bundle's time goes, and how it stands beside others on the same noise."""
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
    options = {"batches": [int(size) for size in sizes], "repeats": repeats, "steps": steps}
    report = bench(bundle, against, **options, say=progress.print)
    if json_file:
        console.write_json(json_file, figures.content(report))
    if plot_file:
        figures.plot(report, plot_file)
    console.show(figures.tables(report))


@verbs.command("reward")
@click.argument("model")
@click.option("-o", "--output", type=_PATH, required=True, help="Folder of the reward; its name is the reward's.")
@click.option("--processor", help="Where tokenizer and image processor are, if not with the model.")
@click.option("--revision", help="Of the model, on the hub.")
@click.option("--target", "targets", multiple=True, default=["onnxruntime"], show_default=True, help="Whose engine; repeatable.")
def _reward(model: str, output: Path, processor: str | None, revision: str | None, targets: tuple[str, ...]) -> None:
    """Make what `generate --best-of` chooses by: CLIP, PickScore, or another pair of encoders of pictures and texts."""
    from exporter import reward

    about = reward.make(model, output, targets, processor=processor, revision=revision)
    click.echo(f"{output}: off by {about.off:.2g} at most, in hundredths of a cosine")


@verbs.command("convert")
@click.argument("bundle", type=_PATH)
@click.option("--to", "layout", type=click.Choice(["optimum", "openvino-genai", "ortpackage"]), required=True, help="Whose.")
@click.option("-o", "--output", type=_PATH, required=True, help="Folder to write, empty or not there.")
def _convert(bundle: Path, layout: Layout, output: Path) -> None:
    """Export a bundle's networks as plain graphs in another tool's layout; needs the source model."""
    from exporter import build
    from exporter.report import progress
    from exporter.stages.store import Store

    with progress.stage_lines(error=True) as lines:
        notes = build.convert(bundle, layout, output, Store(say=lines.say), lines, lambda line: click.echo(line, err=True))
    for note in notes:
        click.echo(f"note: {note}")
    click.echo(output)


@verbs.command("inspect")
@click.argument("path", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--as-recipe", is_flag=True, help="Print a bundle's recipe, with the layers written out that were kept.")
def _inspect(path: Path, *, as_json: bool, as_recipe: bool) -> None:
    """Describe a bundle, or a recipe before anything is built."""
    from exporter.recipe import shipped
    from exporter.report import describe

    if as_recipe:
        from exporter.stages.freeze import written

        click.echo(written(path), nl=False)
        return
    named = shipped.is_bare(path) and not path.exists()
    if path.is_dir() or not (named or path.suffix in shipped.SUFFIXES):
        _print(describe.bundle(path), as_json=as_json)
        return
    from exporter.recipe.schema import Recipe
    from exporter.stages.store import Store

    chosen = Recipe.load(path)
    with _located(chosen):
        _print(describe.recipe(chosen, Store()), as_json=as_json)


@verbs.command("list")
@click.argument("kind", required=False, type=click.Choice(_KINDS))
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a recipe, for editors.")
def _list(kind: str | None, *, schema: bool) -> None:
    """List what there is to name in a recipe; `list samplers` compiles every scheduler, and measures its order."""
    from exporter.report import console, describe

    if schema:
        from exporter.recipe.json_schema import schema as recipe_schema

        click.echo(json.dumps(recipe_schema(), indent=2))
        return
    if kind == "samplers":
        console.show(describe.samplers())
        return
    kinds = [kind] if kind else describe.LISTS
    console.show({each: describe.listing(each) or ["none"] for each in kinds})


@verbs.command("rebuild")
@click.argument("bundle", type=_PATH)
@click.option("--backend", help="Only this one.  [default: every backend of the bundle]")
def _rebuild(bundle: Path, backend: str | None) -> None:
    """Build a bundle's engines again on this machine, from the ONNX inside; needs no torch."""
    from engines.rebuild import rebuild

    for line in rebuild(bundle, backend, click.echo):
        click.echo(line)


@verbs.command("triton")
@click.argument("bundle", type=_PATH)
@click.option("-o", "--output", type=_PATH, default=Path("repository"), show_default=True, help="Folder of the repository.")
@click.option("--backend", type=click.Choice(["onnxruntime", "tensorrt"]), default="onnxruntime", help="Whose engines.")
def _triton(bundle: Path, output: Path, backend: Backend) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server; needs no torch."""
    from engines.triton.repository import write

    for name in write(bundle, output, backend):
        click.echo(output / name)


@verbs.command("web")
@click.argument("bundle", type=_PATH)
@click.option("-o", "--output", type=_PATH, default=Path("site"), show_default=True, help="Folder of the site.")
@click.option("--onnxruntime-web", "library", type=_PATH, metavar="FOLDER|TGZ", help="The npm package, instead of fetching it.")
def _web(bundle: Path, output: Path, library: Path | None) -> None:
    """Write a static site that draws with a bundle in its visitors' browsers; needs no torch."""
    from engines.web.site import write

    size = write(bundle, output, library)
    click.echo(f"{output}: {size / 1e6:.1f} MB. See it at http://localhost:8000 with: python -m http.server -d {output}")


def _print(facts: Mapping[str, object], *, as_json: bool) -> None:
    from exporter.report import console

    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        console.show(facts)


@contextlib.contextmanager
def _located(recipe: Recipe) -> Iterator[None]:
    """Give problems that were found after the recipe was read its file and lines, and what a library says of its model words."""
    from exporter.stages.vendors import vendors

    try:
        with vendors(f"model.source {recipe.model.source}"):
            yield
    except RecipeError as error:
        raise RecipeError(recipe.located(error.problems)) from error


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one verb, and exit with its status."""
    said = " ".join(("t2iexport", *(sys.argv[1:] if arguments is None else arguments)))
    exits.run(verbs, "t2iexport", arguments, lambda error: _known(error) or _of_a_library(error, said))


def _of_a_library(error: Exception, doing: str) -> T2IError | None:
    """The sentence for what a library raised outside of every stage, such as while a bundle is checked; None for a bug."""
    from exporter.stages.vendors import sentence

    return sentence(error, doing)


def _known(error: Exception) -> T2IError | None:
    """What a user can do about an error that is not of this package's tree; None for a bug."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _COMPILE:
        return MissingDependency(str(error.name), "compile")
    if type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: can't allocate memory" in str(error):  # torch's
        return refusal(MemoryError())
    return refusal(error)
