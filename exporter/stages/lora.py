"""LoRAs as inputs: which parts can have them, and the stage that records what a part gives with LoRAs fused into its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import RecipeError
from exporter.reference.recording import RecordingFolder, save_cases
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.part import Case
    from exporter.stages.export import Exported, GraphFiles


@dataclass(frozen=True)
class LoraOutputs:
    """Recorded calls of a part, with what it gives with LoRAs in its weights."""

    folder: Path
    name: str

    @property
    def file(self) -> Path:
        """All of them."""
        return self.folder / f"{self.name}-lora.npz"


def refuse(family: Family) -> None:
    """Raise RecipeError for components that cannot take LoRAs."""
    recipe = family.recipe
    problems: list[str] = []
    for name, component in recipe.components.items():
        where = f"components.{name}.lora"
        if component.lora is None:
            continue
        if family.roles.get(name) not in {"text", "denoiser"}:
            problems.append(f"{where}: LoRAs change text encoders and denoisers; leave it out")
        if recipe.pipeline == "fused":
            problems.append(
                f"{where}: a fused pipeline has no inputs for LoRAs; fuse them (model.loras), or write pipeline: stepped"
            )
        if family.roles.get(name) == "text" and recipe.prompts.weights == "compel":
            problems.append(
                f"{where}: with prompts.weights: compel a text encoder reads a row more than there are prompts; use a1111"
            )
    if problems:
        raise RecipeError(problems)


def recorded(
    part: Exported,
    graph: Stage[GraphFiles],
    recording: Stage[RecordingFolder],
    options: Mapping[str, Any],
    inputs: Mapping[str, str | Stage[Any]],
) -> Stage[LoraOutputs]:
    """Run a part with made-up LoRAs in its weights on some of the calls that `recording` holds of it."""
    name, make = part.source.name, partial(_record, part=part, graph=graph, recording=recording)
    makers = (*part.makers, RecordingFolder, LoraOutputs)
    return Stage.keyed(
        "fuse", name, make, partial(LoraOutputs, name=name),
        options=options, inputs={**inputs, "export": graph}, makers=makers,
    )  # fmt: skip


def _record(folder: Path, results: Results, part: Exported, graph: Stage[GraphFiles], recording: Stage[RecordingFolder]) -> None:
    from exporter.parity import probe_lora  # noqa: PLC0415 - a plan needs no numpy
    from exporter.reference.lora_outputs import fused  # noqa: PLC0415 - torch

    layers, limits = results[graph].lora
    probes = probe_lora.probes(layers.layers, limits)
    whole = part.source.load("fp32", results)
    precision, single = part.precision.of(results), part.precision.single(results)
    made = whole if precision == "fp32" else replace(part.source.load(precision, results), single=single)
    cases = _some(results[recording].cases(part.source.name))
    found = fused(whole, made, cases, probes, lambda items: probe_lora.scales(items, len(probes)))
    save_cases(found, LoraOutputs(folder, part.source.name).file)


def _some(cases: Sequence[Case]) -> list[Case]:
    """The first case of one item, and the first of several."""
    single = {len(next(iter(case.inputs.values()))) == 1: case for case in reversed(cases)}
    return list(single.values())
