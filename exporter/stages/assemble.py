"""Lay the stages' results out as a bundle: clones or copies of the store's files, and the draft of the manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.backends import installed
from engines.bundle import Draft, EngineFiles, Onnx, PartEntry, SamplerEntry, Tokenizer, Verdict, place
from engines.manifest import Defaults
from exporter.recipe import limits

if TYPE_CHECKING:
    from exporter.stages.plan import Done, Plan

_VERSIONS = ("t2iexport", "torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript")


def lay_out(plan: Plan, done: Done, folder: Path) -> Draft:
    """Fill `folder` with what the stages made, and draft the manifest that says what it is."""
    recipe, notes = plan.recipe, list(plan.notes)
    notes += plan.precisions.notes(done) + _found(plan, done, folder) + plan.quantized.notes(done)
    recordings: list[str] = []
    if not recipe.checks.skip:
        runs = sorted(done[plan.reference].glob("run_*.npz"))
        cases = [done["measure", name] / f"{name}.npz" for name in plan.family.roles]
        recordings = [_put(file, folder, f"recordings/{file.name}") for file in (*runs, *cases)]
        recordings.append("recordings/ranges.json")
        (folder / recordings[-1]).write_text(json.dumps(plan.precisions.ranges(done), indent=2, sort_keys=True) + "\n")
    parts = {name: _part(plan, name, done, folder) for name in plan.family.roles}
    return Draft(
        name=recipe.name,
        recipe=recipe.text,
        source=dict(plan.checkpoint.provenance),
        guidance=plan.family.guidance,
        defaults=Defaults(
            height=recipe.shapes.height[1],
            width=recipe.shapes.width[1],
            steps=recipe.sampler.steps[0],
            generator=recipe.generator,
        ),
        tokenizers={name: _tokenizer(name, done, folder) for name in plan.family.towers.values()},
        inputs=dict(plan.family.inputs),
        parts=parts | {name: _whole(plan, name, parts, done, folder) for name in plan.wholes.steps},
        samplers=tuple(_sampler(plan, steps, done, folder) for steps in recipe.sampler.steps),
        process=_process(done, folder),
        recordings=tuple(recordings),
        limits=dict(recipe.checks.limits),
        notes=tuple(notes),
        low_memory=recipe.low_memory,
        versions={name: installed("compile", name) for name in _VERSIONS},
    )


def _found(plan: Plan, done: Done, folder: Path) -> list[str]:
    """What the passes that remade networks have to say: notes, and in files what they found out."""
    notes: list[str] = []
    for name, passes in plan.passes.remade.items():
        for pass_name in passes:
            found = json.loads((done["pass", f"{name}, {pass_name}"] / "found.txt").read_text())
            notes += found["notes"]
            for subject, finding in found["findings"].items():
                file = folder / "passes" / f"{name}-{subject}.json"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(finding, indent=1) + "\n", encoding="utf-8")
    if plan.passes.remade and not plan.recipe.checks.skip:
        notes.append(f"end to end is held to the source pipeline with {' and '.join(plan.passes.remade)} as the passes made it")
    return notes


def _put(file: Path, folder: Path, relative: str) -> str:
    place(file, folder / relative)
    return relative


def _tokenizer(name: str, done: Done, folder: Path) -> Tokenizer:
    made = done["tokenize", name]
    file = _put(made / f"{name}.json", folder, f"tokenizers/{name}.json")
    entry = Tokenizer.model_validate_json((made / "entry.txt").read_text())
    return entry.model_copy(update={"file": file})


def _sampler(plan: Plan, steps: int, done: Done, folder: Path) -> SamplerEntry:
    made = done["compile", f"{steps} steps"] / f"{steps}.json"
    provenance = json.loads(made.read_text())["provenance"]
    size = (provenance["height"], provenance["width"])
    suffix = "" if size == (None, None) else f"-{size[0]}x{size[1]}"
    file = _put(made, folder, f"samplers/{steps}{suffix}.json")
    image = None
    if plan.edits:
        starts = done["compile", f"{steps} steps from an image"] / f"{steps}-image.json"
        image = _put(starts, folder, f"samplers/{steps}{suffix}-image.json")
    return SamplerEntry(steps=steps, height=size[0], width=size[1], file=file, image=image)


def _process(done: Done, folder: Path) -> str | None:
    """What adaptive samplers solve; only a variance-preserving scheduler has it."""
    made = done["process", "scheduler"] / "process.json"
    return _put(made, folder, "samplers/process.json") if made.exists() else None


def _part(plan: Plan, name: str, done: Done, folder: Path) -> PartEntry:
    graphs: dict[str, Onnx] = {}
    facts: dict[str, int | str] = {}
    for opset in plan.opsets(name):
        made = plan.quantized.graph(name, opset, done)
        facts = json.loads((made / "facts.txt").read_text())
        files = sorted(made.glob(f"{name}.onnx*"))
        placed = tuple(_put(file, folder, f"onnx/opset{opset}/{file.name}") for file in files)
        graphs[str(opset)] = Onnx(files=placed, nodes_exported=int(facts["nodes_exported"]), nodes=int(facts["nodes"]))
    return PartEntry(
        role=plan.family.roles[name],
        signature=plan.family.signature(name),
        precision=str(facts["precision"]),  # type: ignore[arg-type]  # validated by the field
        parameters=int(facts["parameters"]),
        passes=plan.passes.told(name),
        remade=name in plan.passes.remade,
        tile=plan.recipe.components[name].tile if name in plan.recipe.components else None,
        quantized=plan.quantized.entry(name, plan.opsets(name)[-1], done, folder),
        onnx=graphs,
        engines={} if plan.wholes.steps else _engines(plan, name, graphs, done, folder),
    )


def _whole(plan: Plan, name: str, parts: Mapping[str, PartEntry], done: Done, folder: Path) -> PartEntry:
    """The pipeline as one graph, whose weights are the parts' files; its precision is the coarsest among them."""
    graphs: dict[str, Onnx] = {}
    for opset in plan.opsets(name):
        made = done["unroll", f"{name}, opset {opset}"]
        facts = json.loads((made / "facts.txt").read_text())
        weights = [file for part in parts.values() for file in part.onnx[str(opset)].files[1:]]
        graph = _put(made / f"{name}.onnx", folder, f"onnx/opset{opset}/{name}.onnx")
        graphs[str(opset)] = Onnx(files=(graph, *weights), nodes_exported=facts["nodes_exported"], nodes=facts["nodes"])
    return PartEntry(
        role="pipeline",
        signature=plan.wholes.signature(name, done),
        precision=max((part.precision for part in parts.values()), key=limits.COARSENESS.index),
        parameters=sum(part.parameters for part in parts.values()),
        onnx=graphs,
        engines=_engines(plan, name, graphs, done, folder),
    )


def _engines(plan: Plan, name: str, graphs: Mapping[str, Onnx], done: Done, folder: Path) -> dict[str, EngineFiles]:
    engines = {}
    for target, backend in plan.targets[name].items():
        built = sorted(file for file in plan.quantized.engine(name, target, done).iterdir() if file.name != "entry.json")
        # A backend that built nothing runs the graph itself.
        files = tuple(_put(file, folder, f"engines/{target}/{file.name}") for file in built)
        engines[target] = EngineFiles(
            options=backend.model_dump(mode="json"),
            opset=backend.opset,
            files=files or graphs[str(backend.opset)].files,
            version=backend.version,
        )
    return engines


def write_verdicts(folder: Path, verdicts: Sequence[Verdict], unable: Sequence[str]) -> None:
    """Keep the result of a check as a stage of its own."""
    content = {"verdicts": [verdict.model_dump(mode="json") for verdict in verdicts], "unable": list(unable)}
    (folder / "verdicts.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_verdicts(folder: Path) -> tuple[list[Verdict], list[str]]:
    """Read what `write_verdicts` wrote."""
    content = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    return [Verdict.model_validate(verdict) for verdict in content["verdicts"]], content["unable"]
