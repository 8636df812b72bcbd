"""Lay the stages' results out as a bundle: clones or copies of the store's files, and the draft of the manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.backends import installed
from engines.bundle import Draft, EngineFiles, Onnx, PartEntry, SamplerEntry, Tokenizer, place
from engines.manifest import Defaults, LoraInputs, Quantized
from exporter.recipe import limits
from exporter.stages.shallow import whole_of

if TYPE_CHECKING:
    from engines.backends import Backend
    from engines.signature import Signature
    from exporter.families import Family
    from exporter.reference.recording import RecordingFolder
    from exporter.stages.engines import BuiltEngine
    from exporter.stages.export import GraphFiles, PartOutputs
    from exporter.stages.lora import LoraOutputs
    from exporter.stages.quantize import CalibrationFile
    from exporter.stages.tables import ProcessFile, SamplerFile, TokenizerFiles

_VERSIONS = ("t2iexport", "torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript")


@dataclass(frozen=True)
class PartContents:
    """What a bundle holds of a part, or of a whole pipeline.

    Attributes:
        signature: its contract.
        graphs: by operator set.
        engines: backend → its options, and what it built; empty for a part of a whole pipeline.
        passes: as the blame table shows them.
        remade: whether they made another network of it.
        outputs: what it gives on the recorded calls.
        quantized: format and calibration, where it is.
        lora: what it gives with LoRAs in its weights, where it takes any and the source was recorded.

    """

    signature: Signature
    graphs: Mapping[int, GraphFiles]
    engines: Mapping[str, tuple[Backend, BuiltEngine]]
    passes: tuple[str, ...] = ()
    remade: bool = False
    outputs: PartOutputs | None = None
    quantized: tuple[str, CalibrationFile] | None = None
    lora: LoraOutputs | None = None


@dataclass(frozen=True)
class Contents:
    """All that a bundle holds.

    Attributes:
        family: of the recipe.
        tokenizers: by name.
        samplers: number of steps, the table from noise, and further ones by what they are, as `SamplerEntry` names them.
        process: what adaptive samplers solve.
        parts: by name, in the order in which they run.
        pipelines: the whole ones, by name.
        recording: what images are held to; None where nothing was recorded.
        ranges: component → the largest activation that was seen, or that stays in half precision.
        metadata: name of a file → what a pass found out.
        notes: sentences for whoever reads the bundle.

    """

    family: Family
    tokenizers: Mapping[str, TokenizerFiles]
    samplers: Sequence[tuple[int, SamplerFile, Mapping[str, SamplerFile]]]
    process: ProcessFile
    parts: Mapping[str, PartContents]
    pipelines: Mapping[str, PartContents]
    recording: RecordingFolder | None
    ranges: Mapping[str, float]
    metadata: Mapping[str, Any]
    notes: Sequence[str]


def lay_out(contents: Contents, folder: Path) -> Draft:
    """Fill `folder` with what the stages made, and draft the manifest that says what it is."""
    recipe, family = contents.family.recipe, contents.family
    recordings = _recordings(contents, folder)
    for name, finding in contents.metadata.items():
        (folder / "passes").mkdir(parents=True, exist_ok=True)
        (folder / "passes" / f"{name}.json").write_text(json.dumps(finding, indent=1) + "\n", encoding="utf-8")
    parts = dict[str, PartEntry]()
    for name, part in contents.parts.items():
        parts[name] = _part(family, name, part, folder, parts.get(whole_of(name)))
    return Draft(
        name=recipe.name,
        recipe=recipe.text,
        source=dict(family.checkpoint.provenance),
        guidance=family.guidance,
        defaults=Defaults(
            height=recipe.shapes.height[1],
            width=recipe.shapes.width[1],
            steps=recipe.sampler.steps[0],
            generator=recipe.generator,
        ),
        tokenizers={name: _tokenizer(made, folder) for name, made in contents.tokenizers.items()},
        inputs=dict(family.inputs),
        noise_order=tuple(family.noise_order),
        start_order={given: tuple(order) for given, order in family.start_order.items()},
        partial_step=family.partial_step,
        parts=parts | {name: _pipeline(name, whole, parts, folder) for name, whole in contents.pipelines.items()},
        samplers=tuple(_sampler(*made, folder) for made in contents.samplers),
        process=_put(file, folder, "samplers/process.json") if (file := contents.process.file) else None,
        recordings=tuple(recordings),
        limits=dict(recipe.checks.limits),
        notes=tuple(contents.notes),
        low_memory=recipe.low_memory,
        versions={name: installed("compile", name) for name in _VERSIONS},
    )


def _put(file: Path, folder: Path, relative: str) -> str:
    place(file, folder / relative)
    return relative


def _recordings(contents: Contents, folder: Path) -> list[str]:
    if contents.recording is None:
        return []
    outputs = [each for part in contents.parts.values() for each in (part.outputs, part.lora)]
    files = [*contents.recording.runs, *(each.file for each in outputs if each)]
    recordings = [_put(file, folder, f"recordings/{file.name}") for file in files]
    recordings.append("recordings/ranges.json")
    (folder / recordings[-1]).write_text(json.dumps(contents.ranges, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return recordings


def _tokenizer(made: TokenizerFiles, folder: Path) -> Tokenizer:
    return made.entry.model_copy(update={"file": _put(made.file, folder, f"tokenizers/{made.file.name}")})


def _sampler(steps: int, made: SamplerFile, further: Mapping[str, SamplerFile], folder: Path) -> SamplerEntry:
    height, width = made.size
    suffix = "" if (height, width) == (None, None) else f"-{height}x{width}"
    file = _put(made.file, folder, f"samplers/{steps}{suffix}.json")
    others: dict[str, Any] = {
        kind: _put(each.file, folder, f"samplers/{steps}{suffix}-{kind}.json") for kind, each in further.items()
    }
    return SamplerEntry(steps=steps, height=height, width=width, file=file, **others)


def _part(family: Family, name: str, part: PartContents, folder: Path, whole: PartEntry | None) -> PartEntry:
    """Lay a part's graphs and engines out; of a shallow one the weights are those of the `whole`."""
    graphs: dict[str, Onnx] = {}
    facts: dict[str, Any] = {}
    for opset, made in part.graphs.items():
        facts = made.facts
        placed = tuple(_put(file, folder, f"onnx/opset{opset}/{file.name}") for file in made.files)
        placed += whole.onnx[str(opset)].files[1:] if whole else ()
        graphs[str(opset)] = Onnx(files=placed, nodes_exported=facts["nodes_exported"], nodes=facts["nodes"])
    return PartEntry(
        role=family.roles[name],
        signature=part.signature,
        precision=facts["precision"],
        parameters=facts["parameters"],
        passes=part.passes,
        remade=part.remade,
        tile=family.recipe.component(name).tile,
        quantized=_quantized(*part.quantized, facts["layers"], folder) if part.quantized else None,
        lora=_lora(name, facts["lora"], folder) if "lora" in facts else None,
        onnx=graphs,
        engines=_engines(part, graphs, folder),
    )


def _quantized(form: str, calibration: CalibrationFile, layers: int, folder: Path) -> Quantized:
    """What the manifest says of a part, with the calibration put into the bundle's folder."""
    found, relative = calibration.content, f"calibration/{calibration.name}.json"
    (folder / relative).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(calibration.file, folder / relative)
    kept = tuple(found.kept)
    return Quantized(format=form, layers=layers, quantized=layers - len(kept), kept=kept, calibration=relative)


def _lora(name: str, told: Mapping[str, Any], folder: Path) -> LoraInputs:
    """What the manifest says of a part's LoRAs, with the list of its layers put into the bundle's folder."""
    file = folder / f"lora/{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n  ".join(json.dumps(layer) for layer in told["layers"])
    file.write_text(f'{{"layers": [\n  {lines}\n]}}\n', encoding="utf-8")
    return LoraInputs(limits=told["limits"], layers=f"lora/{name}.json")


def _pipeline(name: str, whole: PartContents, parts: Mapping[str, PartEntry], folder: Path) -> PartEntry:
    """The pipeline as one graph, whose weights are the parts' files; its precision is the coarsest among them."""
    graphs: dict[str, Onnx] = {}
    for opset, made in whole.graphs.items():
        facts = made.facts
        weights = dict.fromkeys(file for part in parts.values() for file in part.onnx[str(opset)].files[1:])
        graph = _put(made.file, folder, f"onnx/opset{opset}/{name}.onnx")
        graphs[str(opset)] = Onnx(files=(graph, *weights), nodes_exported=facts["nodes_exported"], nodes=facts["nodes"])
    return PartEntry(
        role="pipeline",
        signature=whole.signature,
        precision=max([part.precision for part in parts.values()], key=list(limits.COARSENESS).index),
        parameters=sum(part.parameters for part in parts.values() if part.role != "shallow"),
        onnx=graphs,
        engines=_engines(whole, graphs, folder),
    )


def _engines(part: PartContents, graphs: Mapping[str, Onnx], folder: Path) -> dict[str, EngineFiles]:
    engines = {}
    for target, (backend, built) in part.engines.items():
        # A backend that built nothing runs the graph itself.
        files = tuple(_put(file, folder, f"engines/{target}/{file.name}") for file in built.files)
        engines[target] = EngineFiles(
            options=backend.model_dump(mode="json"),
            opset=backend.opset,
            files=files or graphs[str(backend.opset)].files,
            version=backend.version,
        )
    return engines
