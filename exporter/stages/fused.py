"""What a fused bundle runs: for each number of steps one whole pipeline, instead of an engine per part."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import RecipeError
from engines.guidance import BRANCHES
from engines.signature import Port, Signature
from exporter.stages import engines
from exporter.stages.engine_work import EngineWork
from exporter.stages.export import GraphFiles
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from engines.backends import Backend
    from engines.samplers.table import Table
    from exporter.families import Family
    from exporter.recipe.schema import Recipe
    from exporter.stages.engines import BuiltEngine
    from exporter.stages.tables import SamplerFile


def pipelines(recipe: Recipe, family: Family) -> Mapping[str, int]:
    """Name of each whole pipeline → its number of steps; none where the recipe is `pipeline: stepped`.

    Raises:
        RecipeError: every way in which the recipe asks for what a single graph cannot be.

    """
    if recipe.pipeline == "stepped":
        return {}
    shapes = recipe.shapes
    problems = [
        f"shapes.{axis}: {list(triple)} is a range, and a fused pipeline has one length; write {[triple[1]] * 3}"
        for axis, triple in (("height", shapes.height), ("width", shapes.width), ("batch", shapes.batch))
        if len(set(triple)) > 1
    ]
    problems += [
        f"components.{name}.target: a fused pipeline is one engine; leave it out, or write pipeline: stepped"
        for name, component in recipe.components.items()
        if component.target is not None
    ]
    problems += [
        f"components.{name}.tile: a fused pipeline decodes at once; leave it out, or write pipeline: stepped"
        for name, component in recipe.components.items()
        if component.tile is not None
    ]
    if "encoder" in family.roles.values():
        where = "components.vae_encoder"
        problems.append(f"{where}: a fused pipeline starts from noise only; leave it out, or write pipeline: stepped")
    if recipe.sampler.handover:
        problems.append("sampler.handover: a fused pipeline takes all steps at once; leave it out, or write pipeline: stepped")
    if problems:
        raise RecipeError(problems)
    return {f"pipeline_{steps}": steps for steps in recipe.sampler.steps}


def unrolled(
    name: str, opset: int, family: Family, graphs: Mapping[str, Stage[GraphFiles]], sampler: Stage[SamplerFile]
) -> Stage[GraphFiles]:
    """Join the parts' graphs around a sampler."""
    return Stage.keyed(
        "unroll", f"{name}, opset {opset}", partial(_unroll, name=name, family=family, graphs=graphs, sampler=sampler),
        partial(GraphFiles, name=name), options={}, inputs={**graphs, "sampler": sampler}, makers=(type(family), GraphFiles),
    )  # fmt: skip


def built(
    name: str,
    target: str,
    backend: Backend,
    graph: Stage[GraphFiles],
    sampler: Stage[SamplerFile],
    family: Family,
    parts: Mapping[str, Stage[GraphFiles]],
) -> Stage[BuiltEngine]:
    """Build an engine of a whole pipeline; `parts` have its weights."""
    work = partial(_work, graph=graph, sampler=sampler, family=family, parts=parts)
    inputs: dict[str, Stage[Any]] = {"export": graph, "sampler": sampler}
    return engines.made("engine", name, target, backend, work, inputs=inputs, makers=(type(family),))


def signature(family: Family, table: Table) -> Signature:
    """The contract of a whole pipeline, which takes all the noise of its sampler at once."""
    draws = sum(op.op == "draw" for op in table.ops)
    denoiser, decoder = (family.signature(_having(family, role)) for role in ("denoiser", "decoder"))
    inputs = [port for tower in family.towers for port in family.signature(tower).inputs]
    for port in denoiser.inputs:
        if port.name == "latent":
            inputs.append(Port(name="noise", shape=(port.shape[0], draws, *port.shape[1:])))
        elif port.name in [scale.name for scale in family.guidance.scales]:
            inputs.append(port)
    dims = {name: allowed for name, allowed in denoiser.dims.items() if name != BRANCHES}
    return Signature(inputs=tuple(inputs), outputs=decoder.outputs, dims=dims)


def _having(family: Family, role: str) -> str:
    return next(name for name, found in family.roles.items() if found == role)


def _unroll(
    folder: Path,
    results: Results,
    name: str,
    family: Family,
    graphs: Mapping[str, Stage[GraphFiles]],
    sampler: Stage[SamplerFile],
) -> None:
    """Write the joined graph; the weights stay in the parts' files, beside which it can be opened."""
    import onnx_ir as ir  # noqa: PLC0415 - a plan loads nothing heavy

    from exporter.onnx.fuse_pipeline import unroll  # noqa: PLC0415

    models, table = {part: ir.load(results[stage].file) for part, stage in graphs.items()}, results[sampler].table
    denoiser, decoder = _having(family, "denoiser"), _having(family, "decoder")
    towers = {tower: models[tower] for tower in family.towers}
    whole = (denoiser, models[denoiser]), (decoder, models[decoder])
    shallow = next((models[part] for part, role in family.roles.items() if role == "shallow"), None)
    model, made = unroll(towers, *whole, table, signature(family, table), family.guidance, shallow), GraphFiles(folder, name)
    ir.save(model, made.file)
    made.tell({"nodes_exported": sum(len(each.graph) for each in models.values()), "nodes": len(model.graph)})


def _work(
    results: Results,
    graph: Stage[GraphFiles],
    sampler: Stage[SamplerFile],
    family: Family,
    parts: Mapping[str, Stage[GraphFiles]],
    backend: Backend,
) -> EngineWork:
    weights = (data for stage in parts.values() for data in results[stage].weights)
    return EngineWork(backend, (results[graph].file, *weights), signature(family, results[sampler].table))
