"""The layer behind a line of the blame table: bisect a part's graph, or an engine of it, to the first value that is off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from engines import plugins
from engines.backends import Backend
from engines.bundle import Bundle, PartEntry, Verdict
from engines.errors import UnsupportedError
from engines.plugins import did_you_mean
from exporter.onnx.target_ops import unread
from exporter.parity import repeat, sides
from exporter.parity.judge import judge
from exporter.parity.layers import Layers
from exporter.parity.lint import lint
from exporter.parity.search import FirstFault, agreement, first_off, smallest
from exporter.parity.sides import Sides, SourceNetwork
from exporter.part import Case, Precision
from exporter.recipe.limits import COARSENESS, LIMITS, Limits, class_of
from exporter.reference.recording import load_cases


@dataclass(frozen=True)
class Fault:
    """Where a part goes wrong.

    Attributes:
        line: the line of the blame table, at the recorded call that is worst.
        found: the first value out of limits, and what was seen on the way.
        module: of the source, that the value's nodes come from; empty where nothing tells.
        nodes: of the smallest graph that shows it.
        alone: what that graph answers when it is fed rightly, PSNR in dB.
        floor: least PSNR in dB of a value that is good.
        command: what repeats it.
        layers: the part's graph.
        stale: whether an engine that was built here of the same graph is right, so that only the one in the bundle is wrong.

    """

    line: Verdict
    found: FirstFault
    module: str
    nodes: tuple[ir.Node, ...]
    alone: float
    floor: float
    command: str
    layers: Layers
    stale: bool = False


@dataclass(frozen=True)
class LayerReport:
    """What was found out about a part."""

    verdicts: tuple[Verdict, ...]
    lint: tuple[str, ...]
    fault: Fault | None


def debug(path: Path, part: str, backend: str | None, source: Callable[[Precision], SourceNetwork], folder: Path) -> LayerReport:
    """Find the layer of a part that is to blame, on its recorded calls.

    The graph is held to the source first, in torch; where that keeps its limits, the engine of a backend is held to the graph.

    Args:
        path: the bundle.
        part: a part of it that was recorded.
        backend: whose engine; None is the first of the part's that the bundle has, and of a fused pipeline's part none.
        source: loads the part in torch after its passes, in a precision, when the graph is to be held to it.
        folder: where the smallest graph that shows the fault is written.

    Raises:
        BundleError: the bundle is damaged.
        UnsupportedError: there is no such part, or no recordings, or the graph or the backend cannot be run here.
        MissingDependency: the backend's library is not installed.

    """
    bundle = Bundle.open(path)
    entry, chosen = _chosen(bundle, part, backend)
    opset = str(entry.engines[chosen].opset) if chosen else next(iter(entry.onnx))
    if why := unread(entry, int(opset)):
        raise UnsupportedError(
            f"{part} cannot be looked into here: {why}. Debug a bundle of the same recipe in fp32, or on CUDA."
        )
    graph = [bundle.path(file) for file in entry.onnx[opset].files]
    cases, limits = load_cases(bundle.path(f"recordings/{part}.npz")), Limits(bundle.manifest.limits)
    told = tuple(lint(graph[0]))
    try:
        rows = [*_graph_lines(part, entry, graph, cases, limits)]
    except UnsupportedError as error:  # it cannot be loaded: what is wrong with it by itself says more
        raise UnsupportedError("\n  ".join([str(error), *told])) from error
    rows += _engine_lines(bundle, part, entry, chosen, graph, cases, limits)
    verdicts = tuple(verdict for verdict, _, _ in rows)
    off = [row for row in rows if not row[0].passed]
    if not off:
        return LayerReport(verdicts, told, None)
    first = off[0][2]
    line, case, _ = min((row for row in off if row[2] == first), key=lambda row: row[0].values.get("psnr", -float("inf")))
    case = replace(case, inputs=entry.signature.filled(case.inputs))
    floor = line.limit.get("psnr") or LIMITS["engine" if first == "engine" else "onnx"][_class(entry)]
    model = ir.load(graph[0])
    if first == "engine":
        layers = Layers(model)
        playing = sides.engine(_backend(entry, str(chosen)))
        both = Sides(layers, case.inputs, sides.of_graph(layers, case.inputs), playing)
    else:
        torch = source("fp32")
        layers = Layers(model, torch.modules)
        both = Sides(layers, case.inputs, lambda names: torch(case.inputs, names), sides.reference())
        if first == "passes" and entry.precision != "fp32":
            # The reference runtime may compute a half-precision layer in float32, which hides what overflows.
            coarse = source(entry.precision)
            both.seen = lambda names: coarse(case.inputs, names)
    return LayerReport(verdicts, told, _fault(both, line, floor, folder, engine=first == "engine"))


def _chosen(bundle: Bundle, part: str, backend: str | None) -> tuple[PartEntry, str | None]:
    """The part's entry, and whose engine is looked at."""
    parts = bundle.manifest.parts
    if part not in parts:
        raise UnsupportedError(f"{bundle.folder} has no part {part!r}{did_you_mean(part, sorted(parts))}")
    entry = parts[part]
    if entry.role == "pipeline":
        others = ", ".join(name for name, other in parts.items() if other.role != "pipeline")
        raise UnsupportedError(
            f"{part} is the whole pipeline in one graph, of which only pictures were recorded. "
            f"Debug what it was made of: {others}."
        )
    if f"recordings/{part}.npz" not in bundle.manifest.recordings:
        raise UnsupportedError(f"{bundle.folder} has no recordings of {part} to debug it on. Build it without checks.skip.")
    if backend is not None and backend not in entry.engines:
        if not entry.engines:
            raise UnsupportedError(
                f"{part} has no engine of its own in a fused pipeline. Leave --backend out: its graph is looked at."
            )
        raise UnsupportedError(f"{part} has no engine of {backend!r}{did_you_mean(backend, sorted(entry.engines))}")
    first = next((each for each in bundle.manifest.runs() if each in entry.engines), next(iter(entry.engines), None))
    return entry, backend or first


def _class(entry: PartEntry) -> str:
    return class_of(entry.precision, entry.quantized.format if entry.quantized else "")


def _backend(entry: PartEntry, name: str) -> Backend:
    return plugins.load("backends", name).model_validate(entry.engines[name].options)


Row = tuple[Verdict, Case, str]


def _graph_lines(part: str, entry: PartEntry, graph: Sequence[Path], cases: Sequence[Case], limits: Limits) -> Iterator[Row]:
    """The source, its passes and the graph."""
    floor = limits.of_remade(part) if entry.remade else limits(part, "passes", entry.precision)
    reference = plugins.load("backends", "onnxruntime")(graph_optimization="none")
    with reference.open(graph, entry.signature) as engine:
        for case in cases:
            got = engine(case.inputs)
            passes = [(case.passes[port], case.source[port]) for port in case.source]
            yield judge(part, "passes", case.label, passes, floor), case, "passes"
            pairs = [(got[port], case.passes[port]) for port in case.passes]
            yield judge(part, "onnx", case.label, pairs, limits(part, "onnx", _class(entry))), case, "onnx"


def _engine_lines(
    bundle: Bundle, part: str, entry: PartEntry, name: str | None, graph: Sequence[Path], cases: Sequence[Case], limits: Limits
) -> Iterator[Row]:
    """The graph and an engine of it."""
    if name is None:
        return
    backend = _backend(entry, name)
    inside = max(backend.computes(entry.precision), _class(entry), key=COARSENESS.index)
    reference = plugins.load("backends", "onnxruntime")(graph_optimization="none")
    files = [bundle.path(file) for file in entry.engines[name].files]
    with backend.open(files, entry.signature) as engine, reference.open(graph, entry.signature) as written:
        for case in cases:
            got, want = engine(case.inputs), written(case.inputs)
            pairs = [(got[port], want[port]) for port in want]
            yield judge(part, "engine", case.label, pairs, limits(part, "engine", inside), backend=name), case, "engine"


def _fault(both: Sides, line: Verdict, floor: float, folder: Path, *, engine: bool) -> Fault:
    layers = both.layers
    scores = both.measure(layers.outputs)
    end = min(scores, key=lambda name: scores[name])
    if engine and scores[end] >= floor:
        return Fault(line, FirstFault(end, scores, hidden=False), "", (), scores[end], floor, "", layers, stale=True)
    found = first_off(layers, end, both.measure, floor)
    inside = smallest(layers, found.name, both.alone, floor)
    part, want, got = both.replay(inside)
    nodes = tuple(dict.fromkeys(node for name in inside for node in layers.nodes(name)))
    alone = min(agreement(got[name], want[name]) for name in part.ports)
    command = repeat.write(folder, part, want, got, floor, engine=engine)
    return Fault(line, found, layers.module(found.name), nodes, alone, floor, command, layers)
