"""The shallow part of a denoiser that caches: a graph cut out of the whole one's, which reads the weights beside that."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import RecipeError
from exporter.part import SHALLOW
from exporter.stages.export import GraphFiles
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.recipe.schema import Recipe
    from exporter.stages.passes import Passes


def whole_of(part: str) -> str:
    """Name of the part whose network a part has: a shallow one's whole, else itself."""
    return part.removesuffix(SHALLOW)


def refuse(recipe: Recipe, family: Family, passes: Passes) -> None:
    """Raise RecipeError for what a whole graph can have and its cut cannot."""
    problems: list[str] = []
    for name in family.roles:
        if name == (whole := whole_of(name)):
            continue
        if whole in passes.quantized:
            problems.append(f"components.{whole}.passes: quantize is of whole graphs; with sampler.cache leave it out")
        if recipe.component(whole).lora is not None:
            problems.append(f"components.{whole}.lora: sampler.cache cuts a graph without LoRAs; leave one of them out")
        if (precision := recipe.component(whole).precision) in {"mixed", "auto"}:
            problems.append(
                f"components.{whole}.precision: {precision} looks for operations that need fp32 in the whole network alone; with "
                "sampler.cache write fp32, fp16 or bf16"
            )
    if problems:
        raise RecipeError(problems)


def cut(name: str, opset: int, whole: Stage[GraphFiles], family: Family) -> Stage[GraphFiles]:
    """Cut the graph of a shallow part out of the whole denoiser's."""
    inputs = tuple(port.name for port in family.signature(name).inputs)
    return Stage.keyed(
        "cut", f"{name}, opset {opset}", partial(_cut, name=name, whole=whole, inputs=inputs), partial(GraphFiles, name=name),
        options={"inputs": inputs}, inputs={"export": whole}, makers=(GraphFiles,),
    )  # fmt: skip


def _cut(folder: Path, results: Results, name: str, whole: Stage[GraphFiles], inputs: tuple[str, ...]) -> None:
    """Write the graph alone; its weights stay in the whole one's file, beside which it can be opened."""
    import onnx_ir as ir  # noqa: PLC0415 - a plan loads nothing heavy

    from exporter.onnx.shallow import shallow  # noqa: PLC0415

    source, files = results[whole], GraphFiles(folder, name)
    model = shallow(source.file, inputs)
    ir.save(model, files.file)
    parameters = sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None)
    facts = {"precision": source.facts["precision"], "parameters": parameters}
    files.tell(facts | {"nodes_exported": source.facts["nodes"], "nodes": len(model.graph)})
