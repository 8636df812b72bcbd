"""What a fused bundle runs: for each number of steps one whole pipeline, instead of an engine per part."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from engines.bundle import place
from engines.errors import RecipeError
from engines.samplers.table import Table
from engines.signature import Port, Signature

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.recipe.schema import Recipe
    from exporter.stages.passes import Done


class Wholes:
    """The whole pipelines of a recipe; none where it is `pipeline: stepped`.

    Attributes:
        steps: name of the whole pipeline → number of steps.

    Raises:
        RecipeError: every way in which the recipe asks for what a single graph cannot be.

    """

    def __init__(self, recipe: Recipe, family: Family) -> None:
        self.family = family
        self.steps: Mapping[str, int] = {}
        if recipe.pipeline == "stepped":
            return
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
            problems.append(
                "components.vae_encoder: a fused pipeline starts from noise only; leave it out, or write pipeline: stepped"
            )
        if problems:
            raise RecipeError(problems)
        self.steps = {f"pipeline_{steps}": steps for steps in recipe.sampler.steps}

    def makers(self, name: str) -> tuple[object, ...]:
        """Who makes the contract of a whole pipeline; nobody that of a part, which is the family's."""
        return (self.signature,) if name in self.steps else ()

    def signature(self, name: str, done: Done) -> Signature:
        """The contract of a part, or of a whole pipeline, which takes all the noise of its sampler at once."""
        if name not in self.steps:
            return self.family.signature(name)
        draws = sum(op.op == "draw" for op in self._table(name, done).ops)
        denoiser, decoder = (self.family.signature(self._having(role)) for role in ("denoiser", "decoder"))
        inputs = [port for tower in self.family.towers for port in self.family.signature(tower).inputs]
        for port in denoiser.inputs:
            if port.name == "latent":
                inputs.append(Port(name="noise", shape=(port.shape[0], draws, *port.shape[1:])))
            elif port.name == "guidance_scale":
                inputs.append(port)
        return Signature(inputs=tuple(inputs), outputs=decoder.outputs, dims=denoiser.dims)

    def make(self, folder: Path, name: str, opset: int, done: Done) -> None:
        """Write the joined graph; the weights stay in the parts' files, beside which it can be opened (`beside_weights`)."""
        import onnx_ir as ir  # noqa: PLC0415 - a plan loads nothing heavy

        from exporter.onnx.fuse_pipeline import unroll  # noqa: PLC0415

        graphs = {part: ir.load(done["export", f"{part}, opset {opset}"] / f"{part}.onnx") for part in self.family.roles}
        denoiser, decoder = self._having("denoiser"), self._having("decoder")
        model = unroll(
            {tower: graphs[tower] for tower in self.family.towers},
            (denoiser, graphs[denoiser]),
            (decoder, graphs[decoder]),
            self._table(name, done),
            self.signature(name, done),
        )
        ir.save(model, folder / f"{name}.onnx")
        facts = {"nodes_exported": sum(len(graph.graph) for graph in graphs.values()), "nodes": len(model.graph)}
        (folder / "facts.txt").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")

    @contextlib.contextmanager
    def beside_weights(self, name: str, opset: int, folder: Path, done: Done) -> Iterator[Path]:
        """Lend the joined graph with the parts' weights beside it, below `folder`; gone afterwards."""
        with TemporaryDirectory(dir=folder) as work:
            files = [done["unroll", f"{name}, opset {opset}"] / f"{name}.onnx"]
            files += [done["export", f"{part}, opset {opset}"] / f"{part}.onnx.data" for part in self.family.roles]
            for file in files:
                if file.exists():  # a part may be small enough to have its weights in the graph
                    place(file, Path(work) / file.name)
            yield Path(work) / f"{name}.onnx"

    def _having(self, role: str) -> str:
        return next(name for name, found in self.family.roles.items() if found == role)

    def _table(self, name: str, done: Done) -> Table:
        return Table.load(done["compile", f"{self.steps[name]} steps"] / f"{self.steps[name]}.json")
