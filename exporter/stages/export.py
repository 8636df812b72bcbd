"""Two stages of every part: what it gives on the recorded calls after its passes, and its ONNX graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import plugins
from engines.guidance import BRANCHES
from engines.lora.layers import LoraLayers, LoraLimits, extended
from exporter.reference.recording import RecordingFolder, load_cases, save_cases
from exporter.stages.stage import NamedFile, Results, Stage

if TYPE_CHECKING:
    from engines.signature import Signature
    from exporter.part import Case, Part
    from exporter.recipe.lora import LoraSlots
    from exporter.stages.load import PartSource
    from exporter.stages.precision import PartPrecision


class PartOutputs(NamedFile):
    """The recorded calls of a part, with what it gives after its passes."""

    suffix = ".npz"

    @property
    def cases(self) -> tuple[Case, ...]:
        """The calls."""
        return load_cases(self.file)


class GraphFiles(NamedFile):
    """An ONNX graph, its weights beside it."""

    suffix = ".onnx"

    @property
    def weights(self) -> list[Path]:
        """Files of the weights that are its own."""
        return sorted(self.folder.glob(f"{self.name}.onnx.*"))

    @property
    def files(self) -> list[Path]:
        """Graph and weights."""
        return [self.file, *self.weights]

    @property
    def facts(self) -> dict[str, Any]:
        """`nodes`, `nodes_exported`; of a part `parameters` and `precision`, and where it has them `layers` and `lora`."""
        return json.loads(self._facts.read_text(encoding="utf-8"))

    @property
    def lora(self) -> tuple[LoraLayers, LoraLimits]:
        """Layers that take LoRAs as inputs, and how many and how large; only of a part that has them."""
        told = self.facts["lora"]
        return LoraLayers.model_validate({"layers": told["layers"]}), LoraLimits.model_validate(told["limits"])

    def signature(self, base: Signature) -> Signature:
        """A part's contract with the inputs that its graph has for LoRAs."""
        if "lora" not in self.facts:
            return base
        layers, limits = self.lora
        return extended(base, layers.layers, limits)

    @property
    def _facts(self) -> Path:
        return self.folder / "facts.json"

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Keep what is known of it."""
        self._facts.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


class LastPart:
    """Loads parts at the precision that is found for them, and keeps the last one, since its stages follow each other."""

    def __init__(self) -> None:
        self._held: tuple[PartSource, Part] | None = None

    def load(self, source: PartSource, precision: PartPrecision, results: Results) -> Part:
        """Load a part, or hand out the one that is kept."""
        if self._held is None or self._held[0] is not source:
            self._held = None
            part = source.load(precision.of(results), results)
            self._held = source, replace(part, single=precision.single(results))
        return self._held[1]

    def drop(self) -> None:
        """Let it go: engines need the memory."""
        self._held = None


@dataclass(frozen=True)
class Exported:
    """How a part is exported.

    Attributes:
        source: where it comes from.
        precision: what decides on its precision.
        last: keeps the part between its stages.
        processor: whether all its engines run on a processor.
        fused: operators of one library that its graph may hold.
        lora: LoRAs that it takes as inputs.

    """

    source: PartSource
    precision: PartPrecision
    last: LastPart
    processor: bool
    fused: Sequence[str] = ()
    lora: LoraSlots | None = None

    @property
    def makers(self) -> tuple[object, ...]:
        """Classes of what loads and decides."""
        return *self.source.makers, type(self.last), type(self.precision)

    @property
    def repeats(self) -> int | str:
        """Rows of its network for one item of the batch: branches of guidance, of a prompt its chunks; or a port with as many."""
        family = self.source.family
        if family.roles[self.source.name] == "text":
            return family.guidance.branches * family.recipe.prompts.chunks
        ports = family.signature(self.source.name).inputs
        return next((port.name for port in ports if port.shape[1:2] == (BRANCHES,)), family.guidance.rows)


def measured(
    part: Exported, recording: Stage[RecordingFolder], options: Mapping[str, Any], inputs: Mapping[str, str | Stage[Any]]
) -> Stage[PartOutputs]:
    """Run a part on the calls that `recording`, of the source, holds of it."""
    name = part.source.name
    return Stage.keyed(
        "measure", name, partial(_measure, part=part, recording=recording), partial(PartOutputs, name=name),
        options={**options, "processor": part.processor}, inputs=inputs, makers=(*part.makers, RecordingFolder),
    )  # fmt: skip


def exported(
    part: Exported, opset: int, options: Mapping[str, Any], inputs: Mapping[str, str | Stage[Any]], *, last: bool
) -> Stage[GraphFiles]:
    """Export a part; after the `last` of its graphs the part is let go."""
    name, passes = part.source.name, (plugins.module("graph", each) for each in plugins.names("graph"))  # whichever it gets
    return Stage.keyed(
        "export", f"{name}, opset {opset}", partial(_export, part=part, opset=opset, last=last), partial(GraphFiles, name=name),
        options={**options, "opset": opset, "processor": part.processor, "fused": part.fused},
        inputs=inputs, makers=(*part.makers, GraphFiles, *passes),
    )  # fmt: skip


def _measure(folder: Path, results: Results, part: Exported, recording: Stage[RecordingFolder]) -> None:
    from exporter.reference.part_outputs import measure  # noqa: PLC0415 - torch

    name = part.source.name
    loaded = part.last.load(part.source, part.precision, results)
    save_cases(measure(loaded, results[recording].cases(name)), PartOutputs(folder, name).file)


def _export(folder: Path, results: Results, part: Exported, opset: int, *, last: bool) -> None:
    from exporter.onnx.export import export, save  # noqa: PLC0415 - torch
    from exporter.onnx.lora_inputs import LoraGraphPass  # noqa: PLC0415 - onnx

    loaded, lora = part.last.load(part.source, part.precision, results), None
    if part.lora:
        name, config = part.source.name, part.source.family.checkpoint.configs.get("unet", {})
        lora = LoraGraphPass(part.lora.limits, name, loaded.network, config, part.repeats, part.lora.layers)
    made = export(loaded, opset, processor=part.processor, fused=part.fused, lora=lora)
    files = GraphFiles(folder, part.source.name)
    if last:
        part.last.drop()
    save(made, files.file)
    parameters = sum(parameter.numel() for parameter in loaded.module.parameters())
    facts = {"precision": loaded.precision, "parameters": parameters, "nodes_exported": made.nodes_exported}
    files.tell(facts | {"nodes": made.nodes} | ({"lora": lora.facts()} if lora else {}))
