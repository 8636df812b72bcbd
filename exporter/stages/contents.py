"""What goes into a bundle: of everything that a plan's stages made, what was decided to be kept, and what there is to say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.stages import fused
from exporter.stages.assemble import Contents, PartContents
from exporter.stages.shallow import whole_of

if TYPE_CHECKING:
    from exporter.stages.plan import PartStages, Plan
    from exporter.stages.stage import Results


def opened(plan: Plan, results: Results) -> Contents:
    """Open the results of a plan's stages."""
    tables, parts = plan.tables, {name: plan.parts[name] for name in plan.family.roles}
    recording = results[plan.reference] if plan.reference else None
    ranges = dict(recording.ranges) if recording else {}
    for part in parts.values() if recording else ():
        ranges |= part.precision.left(results)
    networks = {part: [results[stage] for stage in stages.values()] for part, stages in plan.networks.of.items()}
    metadata = {
        f"{part}-{subject}": found for part, each in networks.items() for made in each for subject, found in made.metadata.items()
    }
    return Contents(
        family=plan.family,
        tokenizers={name: results[stage] for name, stage in tables.tokenizers.items()},
        samplers=[
            (steps, results[stage], {kind: results[found[steps]] for kind, found in tables.further.items()})
            for steps, stage in tables.samplers.items()
        ]
        + [
            (size[0], results[stage], {kind: results[found[size]] for kind, found in tables.further.items()})
            for size, stage in tables.sized.items()
        ],
        process=results[tables.process],
        parts={name: _part(plan, name, part, results) for name, part in parts.items()},
        pipelines={name: _pipeline(plan, name, results) for name in plan.wholes},
        recording=recording,
        ranges=ranges,
        metadata=metadata,
        notes=[*plan.notes, *_notes(plan, results)],
    )


def _notes(plan: Plan, results: Results) -> list[str]:
    """What was decided, a sentence each."""
    notes = [note for name in plan.recipe.components for note in plan.parts[name].precision.notes(results)]
    notes += [note for stages in plan.networks.of.values() for stage in stages.values() for note in results[stage].notes]
    if plan.networks.of and plan.recorded:
        notes.append(f"end to end is held to the source pipeline with {' and '.join(plan.networks.of)} as the passes made it")
    quantized = {name: part for name in plan.passes.quantized if (part := plan.parts[name].quantized)}
    notes += [note for part in quantized.values() for note in results[part.gate].notes]
    lowered = {name: part for name, part in quantized.items() if part.step.rest != "none" and results[part.gate].kept}
    return notes + [part.stayed(name, plan.opsets(name)[-1], results) for name, part in lowered.items()]


def _part(plan: Plan, name: str, part: PartStages, results: Results) -> PartContents:
    graphs, engines, quantized = part.graphs, part.engines, part.quantized
    kept: Any = None
    if quantized and results[quantized.gate].kept:
        graphs, kept = quantized.graphs, (quantized.step.format, results[quantized.calibrations[plan.opsets(name)[-1]]])
    elif quantized:
        engines = quantized.rivals
    opened = {opset: results[stage] for opset, stage in graphs.items()}
    return PartContents(
        signature=next(iter(opened.values())).signature(plan.family.signature(name)),
        graphs=opened,
        engines={target: (plan.targets[name][target], results[stage]) for target, stage in engines.items()},
        lora=results[part.lora] if part.lora else None,
        passes=plan.passes.summaries(whole_of(name)),
        remade=whole_of(name) in plan.passes.remade,
        outputs=results[part.outputs] if part.outputs else None,
        quantized=kept,
    )


def _pipeline(plan: Plan, name: str, results: Results) -> PartContents:
    whole = plan.wholes[name]
    return PartContents(
        signature=fused.signature(plan.family, results[plan.tables.samplers[whole.steps]].table),
        graphs={opset: results[stage] for opset, stage in whole.graphs.items()},
        engines={target: (plan.targets[name][target], results[stage]) for target, stage in whole.engines.items()},
    )
