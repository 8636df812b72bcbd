"""From recorded calls to a decision for every layer, and from decisions to a graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from engines.errors import RecipeError, UnsupportedError
from exporter.onnx.export import ExportedModel, save
from exporter.onnx.layers import Layer, delicate, layers, matching
from exporter.quantization import channel_scales as factors_of
from exporter.quantization.calibration import Calibration, Spec
from exporter.quantization.clipping import clip_range, seen
from exporter.quantization.observer import ActivationStats, observe
from exporter.quantization.qdq import write
from exporter.quantization.sensitivity import Move, Scan

if TYPE_CHECKING:
    from engines.signature import Signature
    from exporter.part import Case
    from exporter.quantization.options import QuantizeOptions

#: Calls that are looked at where the recipe does not say.
SAMPLES = 32
#: Calls at which the sensitivity is measured: so many evenly spread, and as many of those that end a run.
_SCANNED = 3
#: What `rest` makes of a layer that stays.
_REST = Spec(weights="int8")


@dataclass(frozen=True)
class CalibrationInput:
    """What a calibration starts from.

    Attributes:
        part: its name in the recipe.
        where: the pass's place in the recipe, for messages.
        digest: of the network's weights.
        graph: the exported ONNX, its weights beside it.
        signature: of the graph.
        cases: recorded calls; empty where none are needed.
        outputs: whether a target wants outputs of convolutions rounded too.
        folder: where temporary files may lie, on the graph's disk.

    """

    part: str
    where: str
    digest: str
    graph: Path
    signature: Signature
    cases: Sequence[Case]
    outputs: bool
    folder: Path


def calibrate(options: QuantizeOptions, given: CalibrationInput) -> Calibration:
    """Decide; `Quantize.calibrate` says how it can fail."""
    model = ir.load(given.graph)
    everything = layers(model)
    if not everything:
        raise UnsupportedError(f"{given.part} has no layer that can be quantized.\n  Leave quantize out of its passes.")
    ends = delicate(everything)
    named = ends if options.keep is None else matching(options.keep, everything, f"{given.where}.keep")
    kept = dict.fromkeys(named, "first or last, or time embedding" if options.keep is None else "named in keep")
    chosen = [layer for layer in everything if layer.name not in kept]
    if not chosen:
        raise UnsupportedError(f"{given.part}: keep leaves no layer to quantize.\n  Name fewer.")
    cases = _samples(options, given) if options.recorded else ()
    watched, made, factors = _watched(options, given, {layer.name for layer in chosen}, cases)
    specs = {layer.name: _spec(options, layer, watched, made, factors.get(layer.name, ())) for layer in chosen}
    forms = _forms(options, given, everything, specs)
    levels = {name: len(each) for name, each in forms.items()}
    alone, measured = dict[Move, float](), None
    if options.keep_above is not None or options.budget is not None:
        with TemporaryDirectory(dir=given.folder) as work:
            few = _telling(given.cases)
            with Scan(given.graph, forms, few, given.signature, Path(work), options.block) as scan:
                alone = scan.alone()
                moves, measured = _chosen(options, scan, alone, {(name, levels[name]) for name in specs}, given.part)
        levels = {name: max((level for moved, level in moves if moved == name), default=0) for name in forms}
    sensitivity = {name: alone[name, len(forms[name])] for name in specs if alone}
    rest = {name: alone[name, 1] for name, each in forms.items() if alone and each != (specs.get(name),)}
    short = [name for name in sensitivity if levels[name] < len(forms[name])]
    kept |= {name: f"{sensitivity[name]:.1f} dB when quantized alone" for name in short}
    if options.rest != "none":
        kept = {name: f"{why}; {_instead(levels.get(name, 0), rest.get(name))}" for name, why in kept.items()}
    specs = {name: forms[name][level - 1] for name, level in levels.items() if level}
    times = [_time(case) for case in cases]
    return Calibration(
        part=given.part,
        digest=given.digest,
        format=options.format,
        ranges=options.ranges if options.form.activations else "",
        samples=tuple(case.label for case in cases),
        layers={layer.name: specs[layer.name] for layer in everything if layer.name in specs},
        kept={layer.name: kept[layer.name] for layer in everything if layer.name in kept},
        sensitivity=sensitivity,
        rest=rest,
        measured=None if measured is None else round(measured, 2),
        seen={layer.name: seen(watched[layer.name], times) for layer in chosen if layer.name in watched},
    )


def apply(options: QuantizeOptions, graph: Path, calibration: Calibration, path: Path) -> int:
    """Write; `Quantize.apply` says how it can fail."""
    model = ir.load(graph)
    found = layers(model)
    if lost := sorted(set(calibration.layers) - {layer.name for layer in found}):
        raise UnsupportedError(
            f"{path.name}: the calibration speaks of {lost[0]} and {len(lost) - 1} more that this graph does not have.\n"
            "  It belongs to another export; calibrate again."
        )
    write(model, found, calibration.layers, options.block)
    save(ExportedModel(model, len(ir.load(graph).graph)), path)
    return len(model.graph)


def _forms(
    options: QuantizeOptions, given: CalibrationInput, everything: Sequence[Layer], specs: Mapping[str, Spec]
) -> Mapping[str, Sequence[Spec]]:
    """Layer → what can become of it, from fine to coarse: weights in 8 bits where `rest` says so, and what the format says."""
    left = set(matching(options.untouched, everything, f"{given.where}.untouched"))
    forms: dict[str, Sequence[Spec]] = {}
    for name in (layer.name for layer in everything):
        own = (specs[name],) if name in specs else ()
        finer = (_REST,) if options.rest == "int8-weights" and name not in left and own != (_REST,) else ()
        if finer or own:
            forms[name] = (*finer, *own)
    return forms


def _chosen(
    options: QuantizeOptions, scan: Scan, alone: Mapping[Move, float], whole: Collection[Move], part: str
) -> tuple[Sequence[Move], float]:
    """The least sensitive moves, as many as hold, and the network's PSNR then; `whole` are those to what the format says."""
    ranked = sorted(alone, key=lambda move: -alone[move])
    if options.keep_above is not None:
        count, measured = scan.most(ranked, options.keep_above)
        if not any(move in whole for move in ranked[:count]):
            best = next(move for move in ranked if move in whole)
            raise UnsupportedError(
                f"{part}: no layer can be quantized at {options.keep_above:g} dB; the least sensitive, {best[0]}, "
                f"alone leaves {alone[best]:.1f} dB.\n  Lower keep_above, or take a format with more bits."
            )
        return ranked[:count], measured
    wanted = [place for place, move in enumerate(ranked, start=1) if move in whole]
    count = wanted[max(1, round(float(options.budget or 1) * len(wanted))) - 1]
    return ranked[:count], scan.error(ranked[:count])


def _instead(level: int, alone: float | None) -> str:
    """What a layer that stays became, in words."""
    told = "weights in 8 bits" if level else "stays as it is"
    if alone is not None:
        told += f": {alone:.1f} dB alone" if level else f": weights in 8 bits alone leave {alone:.1f} dB"
    return told


def _samples(options: QuantizeOptions, given: CalibrationInput) -> Sequence[Case]:
    available = len(given.cases)
    wanted = options.samples or min(SAMPLES, available)
    if available < max(2, wanted):
        raise RecipeError(
            f"{given.where}.samples: {wanted} calls are asked for and {available} were recorded; add checks.prompts or steps"
        )
    return _spread(given.cases, wanted)


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    """So many of the calls, from the first to the last."""
    places = np.linspace(0, len(cases) - 1, min(count, len(cases))).round()
    return [cases[int(place)] for place in np.unique(places)]


def _telling(cases: Sequence[Case]) -> list[Case]:
    """Calls to compare at: some of all, and some of the last of a run, where the noise is least and errors tell most."""
    numbered = [(case, case.label.rpartition("step ")[2].split(" of ")) for case in cases]
    last = [case for case, where in numbered if len(where) == 2 and where[0] == where[1]]
    chosen = {case.label: case for case in (*_spread(cases, _SCANNED), *_spread(last, _SCANNED))}
    return list(chosen.values())


def _watched(
    options: QuantizeOptions, given: CalibrationInput, names: set[str], cases: Sequence[Case]
) -> tuple[Mapping[str, ActivationStats], Mapping[str, ActivationStats], Mapping[str, tuple[float, ...]]]:
    """What goes into the layers and comes out of convolutions, and by what the channels are divided."""
    found: Callable[[ir.Model], Sequence[Layer]] = lambda model: [each for each in layers(model) if each.name in names]  # noqa: E731
    if not cases or not (options.form.activations or options.form.weights == "int4"):
        return {}, {}, {}

    def look(
        factors: Mapping[str, Sequence[float]], *, rows: bool
    ) -> tuple[Mapping[str, ActivationStats], Mapping[str, ActivationStats]]:
        outputs = _rounds_outputs(options, given)
        with TemporaryDirectory(dir=given.folder) as work:
            return observe(given.graph, found, cases, given.signature, Path(work), outputs=outputs, rows=rows, factors=factors)

    searching = options.form.weights == "int4" and options.search
    if not options.form.activations and not searching:
        return {}, {}, {}
    watched, made = look({}, rows=searching)
    if searching:
        return watched, made, factors_of.search(found(ir.load(given.graph)), watched, options.block)
    if options.format != "int8-smoothquant":
        return watched, made, {}
    factors = factors_of.smooth(found(ir.load(given.graph)), watched, options.alpha)
    return *look(factors, rows=False), factors


def _rounds_outputs(options: QuantizeOptions, given: CalibrationInput) -> bool:
    return options.form.conv == "int8" and (given.outputs if options.outputs is None else options.outputs)


def _spec(
    options: QuantizeOptions,
    layer: Layer,
    watched: Mapping[str, ActivationStats],
    made: Mapping[str, ActivationStats],
    factors: tuple[float, ...],
) -> Spec:
    form = options.form
    kind = form.conv if layer.kind == "conv" else form.product
    weights = "int8" if form.weights == "int4" and not _fits(layer) else form.weights
    if not kind:
        return Spec(weights=weights, factors=factors if weights == "int4" else ())  # pyright: ignore[reportArgumentType] - of the table
    clip = clip_range(watched[layer.name], options.ranges, options.percentile, kind)
    output = clip_range(made[layer.name], options.ranges, options.percentile, "int8") if layer.name in made else None
    return Spec(weights=weights, activations=kind, range=clip, output=output, factors=factors)  # pyright: ignore[reportArgumentType] - of the table


def _fits(layer: Layer) -> bool:
    """Whether 4-bit weights have a block: of a product along its input channels, of a convolution along all."""
    return (int(np.prod(layer.shape)) if layer.kind == "conv" else layer.shape[layer.into]) % 16 == 0


def _time(case: Case) -> str:
    times = case.inputs.get("timestep")
    return case.label if times is None else f"{float(times.flat[0]):g}"


def count(graph: Path) -> int:
    """How many layers a graph has that could be quantized."""
    return len(layers(ir.load(graph)))
