"""Whether a quantized network is worth having: beside the same network unquantized, on the same backend, in one run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import MissingDependency, SpeedError, UnsupportedError
from exporter.parity import table
from exporter.parity.compare import judge
from exporter.parity.metrics import labelled
from exporter.recipe.limits import Limits, class_of
from exporter.reference.recording import load_cases

if TYPE_CHECKING:
    from engines.backends import Backend
    from engines.signature import Signature
    from exporter.passes.quantize import Quantize
    from exporter.stages.passes import Done
    from exporter.stages.plan import Plan

#: Seconds that a race may take, and the least number of rounds that count.
_SECONDS, _ROUNDS = 20.0, 5
#: By how much the files must shrink for the gate `size`.
SMALLER = 0.95
#: Share of what quantizing takes from the weights that must be missing from the engine; less says that it holds other numbers.
_SAVED = 0.5


@dataclass(frozen=True)
class Pair:
    """One target's two engines. Sizes in bytes; `seconds` are medians of interleaved calls, None where they do not run here."""

    target: str
    size: int
    plain_size: int
    seconds: tuple[float, float] | None
    ratio: float | None
    whole: int
    steps: int
    unable: str = ""

    @property
    def told(self) -> str:
        """The figures."""
        size = f"{self.size / 1e6:.2f} MB against {self.plain_size / 1e6:.2f} MB unquantized ({self.size / self.plain_size:.0%})"
        if self.seconds is None or self.ratio is None:
            return f"{self.target}: {size}; speed not measured: {self.unable}"
        mine, other = (1e3 * each for each in self.seconds)
        held = f"; {self.whole} of {self.steps} steps compute in whole numbers" if self.steps else ""
        return f"{self.target}: {self.ratio:.2f} times as fast ({mine:.4g} ms against {other:.4g} ms), {size}{held}"

    def wins(self, gate: str) -> bool:
        """Whether the quantized one is kept."""
        if gate == "speed" and self.ratio is not None:
            return self.ratio >= 1.0
        return self.size <= SMALLER * self.plain_size


def weigh(plan: Plan, name: str, done: Done) -> dict[str, Any]:
    """Race and weigh on every target, and decide.

    Returns:
        `kept`: whether the quantized network goes into the bundle; `notes`: the figures.

    Raises:
        SpeedError: it is not the better one, and the recipe names no fallback.
        UnsupportedError: an engine holds other numbers than asked.

    """
    step: Quantize = plan.passes.quantized[name]
    signature, gate = plan.family.signature(name), step.gate or step.form.gate
    inputs = _inputs(plan, name, done)
    pairs = []
    for target, backend in plan.targets[name].items():
        graphs = [done[verb, f"{name}, opset {backend.opset}"] for verb in ("quantize", "export")]
        folders = [done[verb, f"{name}, {target}"] for verb in ("engine", "rival")]
        files = [_files(folder, graph, name) for folder, graph in zip(folders, graphs, strict=True)]
        pair = _pair(target, backend, files, signature, inputs)
        _audit(name, step, pair, [_size(_files(graph, graph, name)) for graph in graphs])
        pairs.append(pair)
    lost = [pair for pair in pairs if not pair.wins(gate)]
    missed = _out_of_limits(plan, name, step, done) if step.fallback else ""
    notes = [f"{name}: {step.told}, {pair.told}" for pair in pairs]
    if not lost and not missed:
        return {"kept": True, "notes": notes}
    why = missed or f"not {'faster' if gate == 'speed' else 'smaller'} on {', '.join(pair.target for pair in lost)}"
    if not step.fallback:
        raise SpeedError(
            f"{name}: {step.told} is {why}.\n  " + "\n  ".join(notes)
            + f"\n  Quantize fewer layers or in another format, set gate: size, or fallback: {plan.precision(name, done)}."
        )  # fmt: skip
    return {"kept": False, "notes": [*notes, f"{name}: kept in {step.fallback}, because {step.told} is {why}"]}


def _pair(
    target: str, backend: Backend, files: Sequence[Sequence[Path]], signature: Signature, inputs: Mapping[str, np.ndarray]
) -> Pair:
    sizes = [_size(each) for each in files]
    try:
        seconds, ratio = _race(backend, files, signature, inputs)
        steps = backend.profile(files[0], signature, inputs)
    except (UnsupportedError, MissingDependency) as error:
        if backend.on_processor:
            raise
        return Pair(target, sizes[0], sizes[1], None, None, 0, 0, str(error).splitlines()[0])
    computing = [kind for operator, kind, _ in steps if operator not in backend.carriers]
    return Pair(target, sizes[0], sizes[1], seconds, ratio, computing.count("int8"), len(computing))


def _race(
    backend: Backend, files: Sequence[Sequence[Path]], signature: Signature, inputs: Mapping[str, np.ndarray]
) -> tuple[tuple[float, float], float]:
    """Medians of both, and the median of the ratios within a round."""
    taken: list[tuple[float, float]] = []
    with backend.open(files[0], signature) as quantized, backend.open(files[1], signature) as plain:
        begin = time.perf_counter()
        while len(taken) < _ROUNDS + 2 or (time.perf_counter() - begin < _SECONDS and len(taken) < 60):
            seconds = [0.0, 0.0]
            for index in (0, 1) if len(taken) % 2 else (1, 0):
                start = time.perf_counter()
                (quantized, plain)[index](inputs)
                seconds[index] = time.perf_counter() - start
            taken.append((seconds[0], seconds[1]))
    counted = np.array(taken[2:])  # the first calls choose kernels and fill caches
    mine, other = (float(value) for value in np.median(counted, axis=0))
    return (mine, other), float(np.median(counted[:, 1] / counted[:, 0]))


def _audit(name: str, step: Quantize, pair: Pair, graphs: Sequence[int]) -> None:
    """Refuse an engine that does not hold what was asked, however well it works.

    By size: what quantizing took from the graph's weights must be missing from the engine too; half of it where the target halves
    weights anyway. By type: where activations are quantized and the library tells its steps, some must compute in whole numbers.
    """
    saved, expected = pair.plain_size - pair.size, (graphs[1] - graphs[0]) * min(1.0, pair.plain_size / graphs[1])
    if saved < _SAVED * expected:
        raise UnsupportedError(
            f"{name}: the {step.format} engine of {pair.target} has {pair.size / 1e6:.2f} MB, {saved / 1e6:.2f} MB less than "
            f"unquantized; {expected / 1e6:.2f} MB were asked for.\n  It holds wider numbers: leave this target or format out."
        )
    if step.form.weights == "int8" and step.form.activations and pair.steps and not pair.whole:
        raise UnsupportedError(
            f"{name}: none of the {pair.steps} steps of {pair.target}'s {step.format} engine computes in whole numbers.\n"
            "  Its silent conversion to floating point would only cost time: set outputs: true, or take int8-weights."
        )


def _out_of_limits(plan: Plan, name: str, step: Quantize, done: Done) -> str:
    """What the quantized graph misses, on the recorded calls; empty where it holds, or nothing was recorded."""
    if plan.recipe.checks.skip:
        return ""
    from engines import plugins  # noqa: PLC0415

    limits, opset = Limits(plan.recipe.checks.limits), plan.opsets(name)[-1]
    precision = class_of(plan.precision(name, done), step.format)
    graph = done["quantize", f"{name}, opset {opset}"]
    reference = plugins.load("backends", "onnxruntime")(graph_optimization="none")
    with reference.open(_files(graph, graph, name), plan.family.signature(name)) as engine:
        for case in load_cases(done["measure", name] / f"{name}.npz"):
            answer = engine(case.inputs)
            pairs = [(answer[port], case.passes[port]) for port in case.passes]
            verdict = judge(name, "onnx", case.label, pairs, limits(name, "onnx", precision))
            if not verdict.passed:
                found = labelled(verdict.values) or verdict.note
                return f"out of limits: {found} at {case.label}, and the limit is {table.limits(verdict.limit)}"
    return ""


def _inputs(plan: Plan, name: str, done: Done) -> Mapping[str, np.ndarray]:
    """A recorded call, or one made up where nothing was recorded."""
    if not plan.recipe.checks.skip:
        return load_cases(done["measure", name] / f"{name}.npz")[0].inputs
    signature = plan.family.signature(name)
    noise, sizes = np.random.Generator(np.random.Philox(0)), signature.extent("typical")
    made = {port: noise.standard_normal(signature.shape(port, sizes)).astype(port.dtype) for port in signature.inputs}
    return {port.name: np.zeros_like(array) if port.dtype == "int64" else array for port, array in made.items()}


def _files(folder: Path, graph: Path, name: str) -> list[Path]:
    """What a backend built; the graph and its weights where that runs the graph itself."""
    built = sorted(file for file in folder.iterdir() if file.name != "entry.json") if folder != graph else []
    return built or sorted(graph.glob(f"{name}.onnx*"))


def _size(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files)
