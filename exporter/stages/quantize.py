"""A quantized part's stages: calibrate, quantize, an unquantized rival of every engine, and which of the two is kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import RecipeError
from exporter.machine import environment
from exporter.quantization import formats
from exporter.quantization.calibration import read
from exporter.quantization.gate import GateDecision
from exporter.reference.recording import RecordingFolder
from exporter.stages import engines
from exporter.stages.engines import BuiltEngine
from exporter.stages.export import GraphFiles, PartOutputs
from exporter.stages.stage import Results, Stage
from exporter.stages.store import file_digest

if TYPE_CHECKING:
    from engines.backends import Backend
    from exporter.families import Family
    from exporter.passes.quantize import Quantize
    from exporter.quantization.calibration import Calibration
    from exporter.stages.precision import PartPrecision

_GATE = "gate.json"


@dataclass(frozen=True)
class CalibrationFile:
    """What was decided for every layer of a part."""

    folder: Path
    name: str

    @property
    def file(self) -> Path:
        """As the bundle holds it."""
        return self.folder / "calibration.json"

    @property
    def content(self) -> Calibration:
        """What is in it."""
        return read(self.file, self.name)


@dataclass(frozen=True)
class Quantizable:
    """A part whose passes end in quantize.

    Attributes:
        name: of the part.
        step: the pass.
        where: its place in the recipe, for messages.
        family: of the recipe.
        targets: the part's, by name.
        digest: of the weights; None where a pass has yet to make them.

    """

    name: str
    step: Quantize
    where: str
    family: Family
    targets: Mapping[str, Backend]
    digest: str | None

    @property
    def outputs(self) -> bool:
        """Whether the int8 convolutions of a target write int8."""
        return any(backend.quantized_outputs for backend in self.targets.values())

    @property
    def named(self) -> Path | None:
        """The calibration that the recipe names, if it does."""
        return None if self.step.calibration is None else self.family.recipe.root / self.step.calibration


@dataclass(frozen=True)
class QuantizedPart:
    """Its stages: by operator set, and by target.

    Attributes:
        step: the pass.
        calibrations: what was decided.
        graphs: the quantized ones.
        rivals: engines of the unquantized graphs.
        gate: which of the two is kept.

    """

    step: Quantize
    calibrations: Mapping[int, Stage[CalibrationFile]]
    graphs: Mapping[int, Stage[GraphFiles]]
    rivals: Mapping[str, Stage[BuiltEngine]]
    gate: Stage[GateDecision]

    def stayed(self, name: str, opset: int, results: Results) -> str:
        """How many of the layers that the format left alone have their weights in 8 bits."""
        found = results[self.calibrations[opset]].content
        lowered = sum(layer in found.layers for layer in found.kept)
        return f"{name}: {lowered} of the {len(found.kept)} layers that stay have weights in 8 bits; the calibration says why"


def refuse(part: Quantizable) -> None:
    """Raise what no format, target or recording can give, before time is spent.

    Raises:
        RecipeError: the pass does not fit the rest of the recipe, or its calibration belongs to another model.
        UnsupportedError: a target does not take the format.

    """
    step, recipe, where = part.step, part.family.recipe, part.where
    formats.refuse(step.format, part.targets)
    for backend in part.targets.values():
        backend.refuse(step.form.weights)
    if recipe.pipeline == "fused":
        raise RecipeError(f"{where}: a fused pipeline joins unquantized graphs; leave it out, or write pipeline: stepped")
    if step.recorded and recipe.checks.skip:
        raise RecipeError(
            f"{where}: {step.format} is calibrated on what the source does, so that is recorded; leave checks.skip out"
        )
    asked = recipe.component(part.name).precision
    if step.fallback and {"mixed": "fp16"}.get(asked, asked) not in {step.fallback, "auto"}:
        raise RecipeError(f"{where}.fallback: {step.fallback}, but unquantized the component is {asked}; write that")
    given(part)


def given(part: Quantizable) -> str:
    """SHA-256 of the calibration that the recipe names; empty where it names none.

    Raises:
        RecipeError: there is no such file, or it belongs to another model or format.

    """
    if (path := part.named) is None:
        return ""
    where, digest = f"{part.where}.calibration", part.digest
    found = read(path, where)
    if digest is not None and found.digest != digest:
        raise RecipeError(
            f"{where}: {path} is of another model ({found.digest[:12]}…, this is {digest[:12]}…); leave it out to calibrate"
        )
    if found.format != part.step.format or found.part != part.name:
        raise RecipeError(f"{where}: {path} is of {found.part} in {found.format}; this is {part.name} in {part.step.format}")
    return file_digest(path)


def calibrated(
    part: Quantizable,
    opset: int,
    export: Stage[GraphFiles],
    weights: str | Stage[Any],
    reference: Stage[RecordingFolder] | None,
    recorded: Mapping[str, Stage[RecordingFolder]],
) -> Stage[CalibrationFile]:
    """Decide how the graph of an operator set is quantized, on the calls that `reference` holds of the part."""
    step = part.step
    inputs: dict[str, str | Stage[Any]] = {"export": export, "weights": weights, **(recorded if step.recorded else {})}
    if step.calibration is not None:
        inputs["calibration"] = given(part)
    digest = str(weights.key) if isinstance(weights, Stage) else weights
    seen = reference if step.recorded else None
    make = partial(_calibrate, part=part, graph=export, digest=digest, seen=seen)
    makers = Quantizable, CalibrationFile, type(step), type(part.family)
    return Stage.keyed(
        "calibrate", f"{part.name}, opset {opset}", make, partial(CalibrationFile, name=part.name),
        options={**step.decides, "outputs": part.outputs}, inputs=inputs, makers=makers,
    )  # fmt: skip


def quantized(part: Quantizable, opset: int, export: Stage[GraphFiles], calibration: Stage[CalibrationFile]) -> Stage[GraphFiles]:
    """Write the quantized graph of an operator set."""
    make = partial(_quantize, name=part.name, step=part.step, graph=export, calibration=calibration)
    return Stage.keyed(
        "quantize", f"{part.name}, opset {opset}", make, partial(GraphFiles, name=part.name),
        options={"block": part.step.block}, inputs={"export": export, "calibration": calibration}, makers=(type(part.step),),
    )  # fmt: skip


def rival(part: Quantizable, target: str, export: Stage[GraphFiles]) -> Stage[BuiltEngine]:
    """Build an engine of the unquantized graph, to be smaller or quicker than."""
    return engines.built(part.name, target, part.targets[target], export, part.family, verb="rival")


@dataclass(frozen=True)
class Contest:
    """What is held against each other: graphs by operator set, engines by target, quantized and not."""

    graphs: Mapping[int, tuple[Stage[GraphFiles], Stage[GraphFiles]]]
    engines: Mapping[str, tuple[Stage[BuiltEngine], Stage[BuiltEngine]]]
    outputs: Stage[PartOutputs] | None


def gate(part: Quantizable, contest: Contest, precision: PartPrecision) -> Stage[GateDecision]:
    """Hold quantized against unquantized, on the part's recorded calls where there are any."""
    step, limits = part.step, dict(part.family.recipe.checks.limits)
    options = {"gate": step.gate, "fallback": step.fallback, "machine": environment().processor, "limits": limits}
    inputs: dict[str, str | Stage[Any]] = {}
    for target, (own, other) in contest.engines.items():
        inputs |= {f"engine {target}": own, f"rival {target}": other}
    if contest.outputs:
        inputs["measure"] = contest.outputs
    makers = type(step), type(part.family), type(precision), GraphFiles, RecordingFolder, GateDecision
    kinds = {type(backend) for backend in part.targets.values()}
    return Stage.keyed(
        "weigh", part.name, partial(_weigh, part=part, contest=contest, precision=precision), _decision,
        options=options, inputs=inputs, makers=(*makers, *kinds),
    )  # fmt: skip


def _calibrate(
    folder: Path,
    results: Results,
    part: Quantizable,
    graph: Stage[GraphFiles],
    digest: str,
    seen: Stage[RecordingFolder] | None,
) -> None:
    from exporter.quantization.calibrate import CalibrationInput  # noqa: PLC0415 - onnx

    file = CalibrationFile(folder, part.name).file
    if part.named is not None:
        shutil.copyfile(part.named, file)
        return
    start = CalibrationInput(
        part=part.name,
        where=part.where,
        digest=digest,
        graph=results[graph].file,
        signature=results[graph].signature(part.family.signature(part.name)),
        cases=results[seen].calls(part.name) if seen else (),
        outputs=part.outputs,
        folder=folder,
    )
    part.step.calibrate(start).dump(file)


def _quantize(
    folder: Path,
    results: Results,
    name: str,
    step: Quantize,
    graph: Stage[GraphFiles],
    calibration: Stage[CalibrationFile],
) -> None:
    from exporter.quantization.calibrate import count  # noqa: PLC0415 - onnx

    exported, made = results[graph], GraphFiles(folder, name)
    nodes = step.apply(exported.file, results[calibration].content, made.file)
    made.tell(exported.facts | {"nodes": nodes, "layers": count(exported.file)})


def _weigh(folder: Path, results: Results, part: Quantizable, contest: Contest, precision: PartPrecision) -> None:
    from exporter.quantization.gate import Candidate, keep_or_fall_back  # noqa: PLC0415 - numpy

    graphs = {opset: tuple(results[stage].files for stage in pair) for opset, pair in contest.graphs.items()}
    signature = next(results[own].signature(part.family.signature(part.name)) for own, _ in contest.graphs.values())
    candidates = []
    for target, pair in contest.engines.items():
        own, other = graphs[part.targets[target].opset]
        # A backend that built nothing runs the graph itself.
        built = [results[stage].files or graph for stage, graph in zip(pair, (own, other), strict=True)]
        candidates.append(Candidate(target, part.targets[target], built[0], built[1], own, other))
    recipe = part.family.recipe
    decision = keep_or_fall_back(
        part.name,
        part.step,
        candidates,
        signature,
        precision=precision.of(results),
        cases=results[contest.outputs].cases if contest.outputs else (),
        limits=recipe.checks.limits,
    )
    decision.write(folder / _GATE)


def _decision(folder: Path) -> GateDecision:
    return GateDecision.read(folder / _GATE)
