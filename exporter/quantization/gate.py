"""Whether a quantized network is worth having: beside the same network unquantized, on the same backend, in one run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines import plugins
from engines.errors import MissingDependency, SpeedError, UnsupportedError
from exporter.parity import table
from exporter.parity.judge import judge
from exporter.parity.metrics import labelled
from exporter.recipe.limits import Asked, Limits, class_of

if TYPE_CHECKING:
    from engines.backends import Backend
    from engines.signature import Signature
    from exporter.part import Case, Precision
    from exporter.quantization.options import QuantizeOptions

#: Seconds that a race may take, and the least number of rounds that count.
_SECONDS, _ROUNDS = 20.0, 5
#: By how much the files must shrink for the gate `size`.
SMALLER = 0.95
#: Share of what quantizing takes from the weights that must be missing from the engine; less says that it holds other numbers.
_SAVED = 0.5


@dataclass(frozen=True)
class Comparison:
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
    def summary(self) -> str:
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


@dataclass(frozen=True)
class Candidate:
    """One target's two engines and the graphs that they were built of: files, the quantized ones first.

    Attributes:
        target: name of the backend.
        backend: opens both.
        engine: quantized.
        plain_engine: not quantized.
        graph: ONNX and its weights, quantized.
        plain_graph: the same, not quantized.

    """

    target: str
    backend: Backend
    engine: Sequence[Path]
    plain_engine: Sequence[Path]
    graph: Sequence[Path]
    plain_graph: Sequence[Path]


@dataclass(frozen=True)
class GateDecision:
    """Whether the quantized network goes into the bundle, and the figures, a sentence each."""

    kept: bool
    notes: tuple[str, ...]

    def write(self, path: Path) -> None:
        """Keep it as JSON."""
        path.write_text(json.dumps({"kept": self.kept, "notes": self.notes}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> GateDecision:
        """Read what `write` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(content["kept"], tuple(content["notes"]))


def keep_or_fall_back(
    name: str,
    step: QuantizeOptions,
    candidates: Sequence[Candidate],
    signature: Signature,
    *,
    precision: Precision,
    cases: Sequence[Case],
    limits: Mapping[str, Asked],
) -> GateDecision:
    """Race and weigh on every target, and decide.

    Args:
        name: of the part.
        step: how it is quantized, and what it must win.
        candidates: one for each target.
        signature: of the part.
        precision: of the unquantized part.
        cases: recorded calls with what the part gives after its passes; empty where nothing was recorded.
        limits: the recipe's own.

    Raises:
        SpeedError: it is not the better one, and the recipe names no fallback.
        UnsupportedError: an engine holds other numbers than asked.

    """
    gate = step.gate or step.form.gate
    inputs = cases[0].inputs if cases else _made_up(signature)
    pairs = []
    for candidate in candidates:
        pair = _pair(candidate, signature, inputs)
        _audit(name, step, pair, (_size(candidate.graph), _size(candidate.plain_graph)))
        pairs.append(pair)
    lost = [pair for pair in pairs if not pair.wins(gate)]
    missed = ""
    if step.fallback and cases:
        graph = max(candidates, key=lambda candidate: candidate.backend.opset).graph
        missed = _out_of_limits(name, graph, signature, cases, Limits(limits), class_of(precision, step.format))
    notes = tuple(f"{name}: {step.summary}, {pair.summary}" for pair in pairs)
    if not lost and not missed:
        return GateDecision(kept=True, notes=notes)
    why = missed or f"not {'faster' if gate == 'speed' else 'smaller'} on {', '.join(pair.target for pair in lost)}"
    if not step.fallback:
        raise SpeedError(
            f"{name}: {step.summary} is {why}.\n  " + "\n  ".join(notes)
            + f"\n  Quantize fewer layers or in another format, set gate: size, or fallback: {precision}."
        )  # fmt: skip
    return GateDecision(kept=False, notes=(*notes, f"{name}: kept in {step.fallback}, because {step.summary} is {why}"))


def _pair(candidate: Candidate, signature: Signature, inputs: Mapping[str, np.ndarray]) -> Comparison:
    target, backend, files = candidate.target, candidate.backend, (candidate.engine, candidate.plain_engine)
    sizes = [_size(each) for each in files]
    try:
        seconds, ratio = _race(backend, files, signature, inputs)
        steps = backend.profile(files[0], signature, inputs)
    except (UnsupportedError, MissingDependency) as error:
        if backend.runs_on_cpu:
            raise
        return Comparison(target, sizes[0], sizes[1], None, None, 0, 0, str(error).splitlines()[0])
    computing = [step.numbers for step in steps if step.operator not in backend.carriers]
    return Comparison(target, sizes[0], sizes[1], seconds, ratio, computing.count("int8"), len(computing))


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


def _audit(name: str, step: QuantizeOptions, pair: Comparison, graphs: Sequence[int]) -> None:
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


def _out_of_limits(
    name: str, graph: Sequence[Path], signature: Signature, cases: Sequence[Case], limits: Limits, precision: str
) -> str:
    """What the quantized graph misses, on the recorded calls; empty where it holds."""
    reference = plugins.load("backends", "onnxruntime")(graph_optimization="none")
    with reference.open(graph, signature) as engine:
        for case in cases:
            answer = engine(case.inputs)
            pairs = [(answer[port], case.passes[port]) for port in case.passes]
            verdict = judge(name, "onnx", case.label, pairs, limits(name, "onnx", precision))
            if not verdict.passed:
                found = labelled(verdict.values) or verdict.note
                return f"out of limits: {found} at {case.label}, and the limit is {table.limits(verdict.limit)}"
    return ""


def _made_up(signature: Signature) -> Mapping[str, np.ndarray]:
    """A call, where none was recorded."""
    noise, sizes = np.random.Generator(np.random.Philox(0)), signature.extent("typical")
    made = {port: noise.standard_normal(signature.shape(port, sizes)).astype(port.dtype) for port in signature.inputs}
    return {port.name: np.zeros_like(array) if port.dtype == "int64" else array for port, array in made.items()}


def _size(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files)
