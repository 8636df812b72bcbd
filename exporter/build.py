"""The data flow, as prose: recipe → stages with content keys → parts, graphs, tables, engines → a checked bundle."""

from __future__ import annotations

import filecmp
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from engines import bundle
from engines.bundle import Bundle, Verdict
from engines.disk import require_folder, writing
from engines.errors import ParityError, RecipeError, SpeedError, UnsupportedError
from exporter.bench.diffusers import source as source_of
from exporter.bench.drawing import require_prompts_alone
from exporter.parity import table
from exporter.part import Precision
from exporter.recipe.limits import Limits
from exporter.recipe.schema import Recipe
from exporter.stages import assemble, away, contents, verdicts
from exporter.stages.load import pipeline_of
from exporter.stages.plan import Plan
from exporter.stages.stage import Results, Stage, closure
from exporter.stages.store import Store
from exporter.stages.vendors import vendors
from exporter.stages.worker import ahead

if TYPE_CHECKING:
    from engines.bundle import Draft
    from exporter.layouts.convert import Layout
    from exporter.parity.debug import LayerReport as Found
    from exporter.parity.sides import SourceNetwork
    from exporter.part import Part
    from exporter.stages.away import Cluster, EnginesAway

R = TypeVar("R")
#: Roles of parts that a picture from noise does without.
_BESIDE = {"encoder", "shallow"}


class Progress(Protocol):
    """Told when a stage begins (`seconds` is None) and when it is done; `by` names who makes it, where this process does not.

    Of such a stage it is told by both; NaN seconds say that the other gave it up.
    """

    def __call__(
        self, stage: Stage[Any], seconds: float | None = None, *, cached: bool = False, why: str = "", by: str = ""
    ) -> None:
        """Show it."""
        ...


def build(
    recipe: Recipe,
    out: Path,
    store: Store,
    report: Progress,
    *,
    reproducible: bool = False,
    cluster: Cluster | None = None,
) -> tuple[Bundle, list[Verdict]]:
    """Turn a recipe into a bundle at `out`, and hold it to its limits.

    Everything is made in the store and in a temporary folder beside `out`; the old bundle stays until the new one has passed.
    With `cluster` its machines build the engines.

    Returns:
        The bundle, and every verdict (the manifest keeps the worst of each line).

    Raises:
        RecipeError, UnsupportedError, MissingDependency: before time is spent, where that can be known.
        ParityError: out of limits; the rejected bundle lies at `<out>.rejected`, and carries the blame table.
        ParityError, SpeedError: of less quality or slower than the recipe allows; the rejected bundle lies there too.
        MachineError: a disk is full or cannot be written; of `out` and the store that is known before time is spent.

    """
    plan = Plan(recipe)
    plan.refuse()
    for gate in _gates(recipe):
        gate.refuse(recipe)
        require_prompts_alone(plan.family.inputs, "a gate for quality or speed")
    require_folder(out.parent)
    bundle.require_place(out)
    away.refuse(plan.stages, store, cluster)
    plan, results = _decided(plan, store, report), Results(store)
    away.refuse(plan.stages, store, cluster)
    with away.engines_away(cluster, store, results, report) if cluster else ahead(plan, store, report) as others:
        _make(plan, store, report, results, others)
        if reproducible:
            _build_twice(plan, store, results, others)
    with store.turn(out), writing(out.parent, f"writing {out}"):
        return _publish(plan, out, store, report, results)


def distill(recipe: Recipe, store: Store, report: Progress) -> dict[str, Path]:
    """Make what the recipe's passes that train need, and train; a build finds the results in the store.

    Under `accelerate launch` every process calls it: each stage is made by one of them, a training by all.

    Returns:
        Part → the folder of its trained network, which diffusers loads.

    Raises:
        RecipeError: nothing in it trains.
        UnsupportedError, MissingDependency, DivergenceError: as the passes say.

    """
    plan = Plan(recipe)
    plan.refuse()
    trained = [stage for stage in plan.stages if stage.resumes]
    if not trained:
        raise RecipeError("components: no pass of this recipe trains; give a part passes: [- distill: {data: …, steps: …}]")
    results, needed = Results(store), closure(trained)
    for stage in (stage for stage in plan.stages if stage in needed):
        if stage.resumes and int(os.environ.get("RANK", "0")) and not store.peek(stage.key):
            with store.scratch() as folder, vendors(f"{stage.verb} of {stage.subject}"):  # the first process keeps the result
                results.fill(stage, folder)
        else:
            _run(stage, store, report, results)
    return {stage.subject.partition(",")[0]: results.folder(stage) for stage in trained if store.peek(stage.key)}


def check(path: Path, backend: str | None, say: Callable[[str], None] = lambda _: None, *, receipt: bool = True) -> list[Verdict]:
    """Check a bundle where it lies, on one backend or on every one that opens here.

    With `receipt` the verdicts are kept in its manifest, if that can be written; `say` is told why not where it cannot.

    Raises:
        UnsupportedError: the backend does not run here, or the bundle was built unchecked.

    """
    opened = Bundle.open(path)
    opened.verify()
    if not opened.manifest.recordings:
        told = next((note for note in opened.manifest.notes if note.startswith("unchecked")), "unchecked")
        raise UnsupportedError(f"{path} has no recordings to check against ({told}). Build it without checks.skip.")
    limits = Limits(opened.manifest.limits)
    backends = [backend] if backend else list(opened.manifest.runs())
    found, unable = verdicts.judge(path, backends, limits)
    if unable and len(unable) == len(backends):
        raise UnsupportedError("\n".join(unable))
    if receipt:
        _keep(opened, found, say)
    return found


def debug(path: Path, part: str, backend: str | None, folder: Path, store: Store, report: Progress) -> Found:
    """Find the layer of a part that is out of limits; the source is loaded, and its passes are made, only where it is needed."""
    from exporter.parity.debug import debug as look_into  # noqa: PLC0415 - onnx

    def load(precision: Precision) -> SourceNetwork:
        from exporter.reference.step_values import StepValues  # noqa: PLC0415 - torch

        plan, half = Plan(source_of(Bundle.open(path))[0]), precision != "fp32"
        asked, results = plan.parts[part], Results(store)
        needed = (asked.source.network, *((plan.reference, asked.precision.islands) if half else ()))
        wanted = closure(stage for stage in needed if stage)
        for stage in plan.stages:
            if stage in wanted:
                _run(stage, store, report, results)
        made = asked.source.load(precision, results)
        return StepValues(replace(made, single=asked.precision.single(results)) if half else made)

    return look_into(path, part, backend, load, folder)


def convert(path: Path, layout: Layout, out: Path, store: Store, report: Progress, say: Callable[[str], None]) -> list[str]:
    """Write a bundle's source model, with the networks as its passes leave them, in another tool's layout.

    Returns:
        What the folder does not hold, and how to draw the bundle's pictures with it, a sentence each.

    Raises:
        UnsupportedError: the source model is not here, or the layout cannot hold it.
        MissingDependency: a library is not installed.

    """
    from exporter.layouts import convert as layouts  # noqa: PLC0415 - torch

    manifest = Bundle.open(path).manifest
    plan = Plan(source_of(Bundle.open(path))[0])
    layouts.require(plan.family.driving.pipeline, manifest, out)
    results, sources = Results(store), {name: part.source for name, part in plan.parts.items()}
    _remake(plan, store, report, results)
    layouts.convert(pipeline_of(plan.family, sources, results), manifest, layout, out, say)
    return layouts.notes(manifest, plan.recipe.sampler.step)


def modules(path: Path, store: Store, report: Progress) -> dict[str, Part]:
    """What a bundle runs from a prompt to an image, in torch, fp32: the source's networks as the recipe's passes leave them.

    A pass that works on a graph, as quantization does, is none of these.

    Raises:
        UnsupportedError: the source model is not here.

    """
    plan, results = Plan(source_of(Bundle.open(path))[0]), Results(store)
    _remake(plan, store, report, results)
    roles = plan.family.roles
    return {name: part.source.load("fp32", results) for name, part in plan.parts.items() if roles[name] not in _BESIDE}


def _remake(plan: Plan, store: Store, report: Progress, results: Results) -> None:
    """Make the networks that the recipe's passes make."""
    needed = closure(part.source.network for part in plan.parts.values() if part.source.network)
    for stage in (stage for stage in plan.stages if stage in needed):
        _run(stage, store, report, results)


def _keep(opened: Bundle, verdicts: list[Verdict], say: Callable[[str], None]) -> None:
    """Put verdicts into a bundle's manifest, in the place of those that they succeed."""
    if (opened.folder / bundle.MANIFEST).is_symlink():
        say(f"{opened.folder}: the verdicts are not kept in the bundle, because it lies in the hub's cache.")
        return
    judged = {(verdict.part, verdict.backend) for verdict in verdicts}
    others = [old for old in opened.manifest.verdicts if old.backend and (old.part, old.backend) not in judged]
    kept = (*table.worst(verdicts), *others)
    checked = tuple(f"{name} was built again" for _, name in judged)
    notes = [note for note in opened.manifest.notes if not note.startswith(checked)]
    try:
        bundle.revise(opened, verdicts=kept, notes=tuple(notes))
    except OSError as error:
        say(f"{opened.folder}: the verdicts are not kept in the bundle, because it cannot be written to ({error.strerror}).")


def _decided(plan: Plan, store: Store, report: Progress) -> Plan:
    """The plan itself; where its recipe leaves the step caching to a search, that is made, and what it finds planned."""
    results = Results(store)
    if plan.search:
        for stage in plan.stages:
            _run(stage, store, report, results)
    found = plan.decided(results)
    found.refuse()
    return found


def _make(plan: Plan, store: Store, report: Progress, results: Results, others: EnginesAway | None) -> None:
    """Make every stage; those that hang on what others were given to build, last."""
    last = list[Stage[Any]]()
    for stage in plan.stages:
        if others and others.hangs_on(stage):
            last.append(stage)
        elif not (others and others.begin(stage)):
            _run(stage, store, report, results)
    if others:
        others.finish()
    for stage in last:
        _run(stage, store, report, results)


def _run(stage: Stage[R], store: Store, report: Progress, results: Results) -> R:
    report(stage)
    start = time.perf_counter()
    why = store.why(stage.key)
    with vendors(f"{stage.verb} of {stage.subject}"):
        result = results[stage]
    report(stage, time.perf_counter() - start, cached=not why, why=why)
    return result


def _publish(plan: Plan, out: Path, store: Store, report: Progress, results: Results) -> tuple[Bundle, list[Verdict]]:
    """Lay the bundle out beside its place, hold it to its limits there, and put it in its place."""
    temporary = out.with_name(f".{out.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # of a build that was killed: this is the only one at work here
    try:
        draft, written = _lay_out(plan, temporary, results)
        verdicts, notes = _check(plan, temporary, store, report, results)
        kept = tuple(table.worst(verdicts))
        receipts = {"verdicts": kept, "notes": (*draft.notes, *notes)}
        bundle.revise(written, **receipts)
        if failed := [verdict for verdict in verdicts if not verdict.passed]:
            raise ParityError(
                f"{table.table(verdicts)}\n\n{len(failed)} of {len(verdicts)} comparisons are out of limits. "
                f"{_reject(temporary, out)} The first line that fails names the part and the stage to blame."
            )
        told = _gated(plan, temporary, out, store, report, results)
        if told:
            bundle.revise(written, **receipts | {"notes": (*receipts["notes"], *told)})
        bundle.publish(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle.open(out), verdicts


def _gates(recipe: Recipe) -> Iterator[Any]:
    """The modules of those that the recipe asks for; most builds pass none, and load no player of pictures for them."""
    if recipe.checks.quality:
        from exporter.bench import quality_gate  # noqa: PLC0415

        yield quality_gate
    if recipe.checks.faster_than:
        from exporter.bench import speed_gate  # noqa: PLC0415

        yield speed_gate


def _gated(plan: Plan, temporary: Path, out: Path, store: Store, report: Progress, results: Results) -> list[str]:
    """Hold the bundle to what the recipe asks of quality and speed; what was found, a sentence each."""
    told = list[str]()
    try:
        for gate in _gates(plan.recipe):
            told += _run(gate.stage(plan, temporary), store, report, results)
    except SpeedError as error:
        raise SpeedError(f"{error}\n{_reject(temporary, out)}") from error
    except ParityError as error:
        blamed = _blamed(error, plan, store, report)
        raise ParityError("\n".join(filter(None, (str(error), blamed, _reject(temporary, out))))) from error
    return told


def _blamed(error: ParityError, plan: Plan, store: Store, report: Progress) -> str:
    """Which pass lost the quality that a gate misses; the recipe is built up to each of them."""
    from exporter.bench import quality_blame  # noqa: PLC0415 - as the gate

    def lay_out(recipe: Recipe, folder: Path) -> None:
        shorter, made = _decided(Plan(recipe), store, report), Results(store)
        for stage in shorter.stages:
            _run(stage, store, report, made)
        _lay_out(shorter, folder, made)

    return quality_blame.blame(error, plan.recipe, plan.passes.of, lay_out)


def _lay_out(plan: Plan, folder: Path, results: Results) -> tuple[Draft, Bundle]:
    """Write a bundle of what a plan's stages made, before anything judges it."""
    draft = assemble.lay_out(contents.opened(plan, results), folder)
    return draft, bundle.write(folder, draft)


def _reject(temporary: Path, out: Path) -> str:
    """Put a bundle that was refused beside its place, for whoever wants to know why; the sentence that says so."""
    rejected = out.with_name(f"{out.name}.rejected")
    try:
        bundle.publish(temporary, rejected)
    except UnsupportedError as error:
        return f"The rejected one is not kept: {error} {out} was not touched."
    return f"The rejected one lies at {rejected}; {out} was not touched."


def _check(plan: Plan, path: Path, store: Store, report: Progress, results: Results) -> tuple[list[Verdict], list[str]]:
    if plan.recipe.checks.skip:
        return [], [f"unchecked: {plan.recipe.checks.skip}"]
    checked = _run(verdicts.stage(plan, path), store, report, results)
    return checked.verdicts, checked.unable


def _build_twice(plan: Plan, store: Store, results: Results, others: EnginesAway | None) -> None:
    """Build every engine once more and compare bytes with the one that is kept."""
    for engine in (stage for stage in plan.stages if stage.verb == "engine"):
        with store.scratch() as folder:
            if others and engine.elsewhere:
                others.fill(engine, engine.elsewhere, folder)
            else:
                results.fill(engine, folder)
            for second in sorted(folder.iterdir()):
                if not filecmp.cmp(results.folder(engine) / second.name, second, shallow=False):
                    raise UnsupportedError(
                        f"{engine.subject}: two builds of one graph differ in {second.name}. Nothing was published."
                    )
