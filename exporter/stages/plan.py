"""What a build will do: every stage with its content key, known before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engines import plugins
from engines.errors import RecipeError
from exporter.caching import schedules
from exporter.families import claim
from exporter.models.resolve import resolve
from exporter.models.sampler_compat import judge
from exporter.onnx import target_ops
from exporter.parity import metrics
from exporter.part import DEEP
from exporter.stages import cache_search, engines, export, fused, lora, precision, quantize, recording, shallow, tables
from exporter.stages.load import PartSource
from exporter.stages.networks import Networks
from exporter.stages.passes import Passes
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from engines.backends import Backend
    from engines.samplers.table import Table
    from exporter.recipe.sampling import CacheOptions
    from exporter.recipe.schema import Recipe
    from exporter.reference.recording import RecordingFolder
    from exporter.stages.cache_search import FoundSchedule
    from exporter.stages.engines import BuiltEngine
    from exporter.stages.export import GraphFiles, PartOutputs
    from exporter.stages.lora import LoraOutputs
    from exporter.stages.quantize import QuantizedPart

R = TypeVar("R")


@dataclass(frozen=True)
class PartStages:
    """A part's stages: graphs by operator set, engines by target.

    Attributes:
        source: where it comes from.
        precision: what decides on its precision.
        outputs: what it gives on the recorded calls; None where nothing is recorded.
        graphs: as exported.
        engines: of these, or of the quantized ones; empty where the pipeline is fused.
        quantized: None where it is not quantized.
        lora: what it gives with LoRAs in its weights; None where it takes none, or nothing is recorded.

    """

    source: PartSource
    precision: precision.PartPrecision
    outputs: Stage[PartOutputs] | None
    graphs: Mapping[int, Stage[GraphFiles]]
    engines: Mapping[str, Stage[BuiltEngine]]
    quantized: QuantizedPart | None
    lora: Stage[LoraOutputs] | None = None

    @property
    def stages(self) -> Iterator[Stage[Any]]:
        """All of them, the torch module's first: it is let go before the engines need the memory."""
        if self.precision.islands:
            yield self.precision.islands
        if self.outputs:
            yield self.outputs
        for opset, graph in self.graphs.items():
            yield graph
            if self.quantized:
                yield self.quantized.calibrations[opset]
                yield self.quantized.graphs[opset]
        if self.lora:
            yield self.lora
        for engine in self.engines.values():
            yield from engines.each(engine)
        if self.quantized:
            for rival in self.quantized.rivals.values():
                yield from engines.each(rival)
            yield self.quantized.gate


@dataclass(frozen=True)
class PipelineStages:
    """The stages of a whole pipeline with one number of steps: graphs by operator set, engines by target."""

    steps: int
    graphs: Mapping[int, Stage[GraphFiles]]
    engines: Mapping[str, Stage[BuiltEngine]]


class Plan:
    """A recipe's stages, in an order in which each finds what it needs; whatever else needs one finds it here by what it is.

    Attributes:
        asked: the recipe.
        recipe: the same, with some schedule where it leaves its step caching to a search.
        checkpoint: where the weights are.
        family: how the networks are wrapped.
        pipelines: name of each whole pipeline of a fused bundle → its number of steps.
        targets: part or pipeline → name → constructed options, in the recipe's order; a part may have one of its own.
        passes: of every part.
        pairing: what the model was made for, and what is unusual about the sampler.

    Raises:
        RecipeError: the recipe does not fit the model, or its sampler is one that the model was not made for.

    """

    def __init__(self, recipe: Recipe, notes: Iterable[str] = ()) -> None:
        self.asked, self.recipe = recipe, (recipe := cache_search.supposed(recipe))
        self.checkpoint = resolve(recipe.model, recipe.root)
        self.pairing = judge(recipe, self.checkpoint)
        try:
            self.family = claim(self.checkpoint, recipe)
        except RecipeError as error:
            raise RecipeError([*error.problems, *self.pairing.problems]) from error
        if problems := [*self.pairing.problems, *metrics.problems(recipe.checks.limits)]:
            raise RecipeError(problems)
        self.notes = (*notes, *self.checkpoint.notes, *self.family.notes, *self.pairing.notes)
        self.pipelines = fused.pipelines(recipe, self.family)
        shared = _backends(recipe.targets)
        own = {name: recipe.component(shallow.whole_of(name)).target for name in (*self.family.roles, *self.pipelines)}
        self.targets = {name: shared if target is None else _backends([target]) for name, target in own.items()}
        self.passes = Passes(recipe, self.family)
        shallow.refuse(recipe, self.family, self.passes)
        if self._open:
            cache_search.refuse(self.family, self.passes)
            self.notes = (cache_search.about(self._open, self.passes.expected_family), *self.notes)

    def refuse(self) -> None:
        """Raise UnsupportedError for what no engine can be and no pass can do, before time is spent."""
        self.passes.refuse(self.targets)
        for name in self.family.roles:
            asked = self.recipe.component(name).precision
            for backend in self.targets[name].values():
                backend.refuse("fp16" if asked in {"auto", "mixed"} else asked)
        for name in self.family.roles:
            precision.refuse(self.recipe, name)
        lora.refuse(self.family)
        for name in self.passes.quantized:
            quantize.refuse(self._quantizable(name))

    @cached_property
    def stages(self) -> tuple[Stage[Any], ...]:
        """Every stage but the last, `check`; a part's own stages stand together, so that its weights are loaded once.

        Where the recipe leaves its step caching to a search, that and what it needs.
        """
        if self.search:
            return (*self.networks.stages, self.search)
        found: list[Stage[Any]] = [*self.tables.stages]
        found += [self.recorded] if self.recorded else []
        found += self.networks.stages
        found += [self.reference] if self.reference and self.reference is not self.recorded else []
        for part in self.parts.values():
            found += part.stages
        for pipeline in self.wholes.values():
            found += [*pipeline.graphs.values(), *(each for engine in pipeline.engines.values() for each in engines.each(engine))]
        return tuple(found)

    @cached_property
    def search(self) -> Stage[FoundSchedule] | None:
        """What finds the schedule of step caching, where the recipe leaves that open; all that hangs on it waits."""
        if self._open is None:
            return None
        depths = tuple(schedules.tried(self.passes.expected_family.cache_depths))
        return cache_search.searched(self.family, self._open, depths, self.networks.last)

    def decided(self, results: Results) -> Plan:
        """The plan itself, or where it has a search, that of the same recipe with the schedule that was found, written out."""
        if self.search is None or self._open is None:
            return self
        found = results[self.search]
        return Plan(self.asked.changed(f"sampler.cache={found.plain}"), [cache_search.found(self._open, found)])

    @property
    def _open(self) -> CacheOptions | None:
        """What the recipe asks of a step caching that is yet to be found."""
        cache = self.asked.sampler.cache
        return cache if cache and cache.searches else None

    @cached_property
    def tables(self) -> tables.Tables:
        """Tokenizers, samplers and their process."""
        return tables.Tables(self.family)

    @cached_property
    def recorded(self) -> Stage[RecordingFolder] | None:
        """What the source does; None where the recipe skips the checks."""
        return recording.source(self.family, self.passes.source)

    @cached_property
    def networks(self) -> Networks:
        """The networks that passes make."""
        return Networks(self.passes, self.recorded)

    @cached_property
    def reference(self) -> Stage[RecordingFolder] | None:
        """The recording that images are held to: of the source, or of the pipeline with the networks that passes made."""
        return recording.remade(self.family, self.networks.last) if self.recorded and self.networks.last else self.recorded

    @cached_property
    def parts(self) -> Mapping[str, PartStages]:
        """The stages of every part."""
        last = export.LastPart()
        # The denoiser last: by far the longest, and a second process may already be at it.
        late, found = {"denoiser": 1, "shallow": 2}, dict[str, PartStages]()
        for name in sorted(self.family.roles, key=lambda name: late.get(self.family.roles[name], 0)):
            whole = found.get(shallow.whole_of(name))
            found[name] = self._shallow(name, whole, last) if whole else self._part(name, last)
        return found

    @cached_property
    def wholes(self) -> Mapping[str, PipelineStages]:
        """The parts' graphs joined around each sampler, and engines of the whole; empty unless the recipe is fused."""
        return {name: self._whole(name, steps) for name, steps in self.pipelines.items()}

    def opsets(self, name: str) -> tuple[int, ...]:
        """Operator sets that a part's backends want, each once."""
        return tuple(sorted({backend.opset for backend in self.targets[name].values()}))

    def table(self, steps: int) -> Table:
        """Compile the sampler at a number of steps.

        Raises:
            RecipeError, UnsupportedError: there is no such scheduler, or none such as the recipe wants it.

        """
        return tables.compiled(self.family, steps)

    def last_stage(
        self,
        verb: str,
        make: Callable[[Path, Results], None],
        result: Callable[[Path], R],
        *,
        options: Mapping[str, Any],
        makers: Iterable[object],
    ) -> Stage[R]:
        """One of those that judge the bundle, and so depend on everything that is in it and on who laid it out."""
        before = {f"{stage.verb} {stage.subject}": stage for stage in self.stages}
        kinds = {type(backend) for backends in self.targets.values() for backend in backends.values()}
        everyone = {*makers, *kinds, "engines.samplers.table"}
        return Stage.keyed(verb, "bundle", make, result, options=options, inputs=before, makers=everyone)

    def _on_processor(self, name: str) -> bool:
        """Whether every engine of a part runs on a processor; of a fused pipeline's part, every engine of the pipeline."""
        return all(backend.runs_on_cpu for each in (name, *self.pipelines) for backend in self.targets[each].values())

    def _quantizable(self, name: str) -> quantize.Quantizable:
        digest = None if name in self.passes.remade else self.family.digest(name)
        pass_name = next(each for each, step in self.passes.of[name].items() if step.kind == "graph")
        where = self.passes.place(name, pass_name)
        return quantize.Quantizable(name, self.passes.quantized[name], where, self.family, self.targets[name], digest)

    def _precision(self, name: str, islands: Stage[precision.IslandsFile] | None) -> precision.PartPrecision:
        configs = self.passes.expected_family.checkpoint.configs
        upcast = name.startswith("vae") and configs.get(name, configs.get("vae", {})).get("force_upcast", True)
        asked = self.recipe.component(name).precision
        return precision.PartPrecision(name, asked, self._on_processor(name), upcast, self.reference, islands)

    def _part(self, name: str, last: export.LastPart) -> PartStages:
        component, processor, targets = self.recipe.component(name), self._on_processor(name), self.targets[name]
        steps = tuple(step for step in self.passes.of.get(name, {}).values() if step.kind == "weights")
        source = PartSource(name, self.family, self.networks.last.get(name), steps)
        options = self._options(name)
        weights: dict[str, str | Stage[Any]] = {"weights": self.networks.weights(name)}
        measured = precision.measured(component.precision)
        inputs = weights | (self._recordings if measured else {})
        islands = None
        if self.reference and measured and not (component.precision == "auto" and processor):
            islands = precision.islands(source, self.reference, asked=component.precision, options=options, inputs=inputs)
            inputs |= {"islands": islands}
        asked = self._precision(name, islands)
        outputs = None
        if self.recorded:
            seen = inputs if measured else weights | {"record": self.recorded}
            outputs = export.measured(export.Exported(source, asked, last, processor), self.recorded, options, seen)
        graphs: dict[int, Stage[GraphFiles]] = {}
        for opset in self.opsets(name):
            kinds = target_ops.fused(targets.values(), opset, self.recipe.pipeline)
            part = export.Exported(source, asked, last, processor, kinds, component.lora)
            taking = {"lora": component.lora.model_dump(mode="json")} if component.lora else {}
            graphs[opset] = export.exported(part, opset, options | taking, inputs, last=opset == self.opsets(name)[-1])
        adapted = None
        if component.lora and self.recorded:
            part, own = export.Exported(source, asked, last, processor), inputs | {"record": self.recorded}
            adapted = lora.recorded(part, graphs[self.opsets(name)[-1]], self.recorded, options, own)
        if self.pipelines:
            return PartStages(source, asked, outputs, graphs, {}, None)
        if name not in self.passes.quantized:
            return PartStages(source, asked, outputs, graphs, self._engines(name, graphs), None, adapted)
        quantized, built = self._quantized(name, asked, outputs, graphs)
        return PartStages(source, asked, outputs, graphs, built, quantized, adapted)

    def _options(self, name: str) -> dict[str, Any]:
        """What a part's torch module depends on."""
        whole, sampler = shallow.whole_of(name), self.recipe.sampler
        options = self.recipe.component(whole).model_dump(mode="json", exclude={"target", "lora"})
        graph = {each for each, step in self.passes.of.get(whole, {}).items() if step.kind == "graph"}
        options["passes"] = [step for step in options["passes"] if not step.keys() & graph]
        options |= {"signature": self.family.signature(name).model_dump(mode="json")}
        options |= {"guidance": sampler.guidance.mode}
        options |= {"call": dict(self.recipe.model.call)} if self.recipe.model.call else {}
        options |= {"pictures": dict(self.recipe.model.pictures)} if self.recipe.model.pictures else {}
        options |= {"rescale": sampler.guidance.rescale} if sampler.guidance.rescale else {}
        denoises = self.family.roles[name] in {"denoiser", "shallow"}
        options |= (
            {"pag": sampler.guidance.pag.model_dump(mode="json", exclude={"scale"})} if denoises and sampler.guidance.pag else {}
        )
        options |= {"prompts": self.recipe.prompts.model_dump(mode="json")} if self.family.roles[name] == "text" else {}
        return options | ({"depth": sampler.cache.depth} if sampler.cache and DEEP in str(options["signature"]) else {})

    def _shallow(self, name: str, whole: PartStages, last: export.LastPart) -> PartStages:
        """The stages of a denoiser's shallow part: graphs cut out of the whole one's, and what its layers give by themselves."""
        source, outputs = replace(whole.source, name=name), None
        graphs = {opset: shallow.cut(name, opset, graph, self.family) for opset, graph in whole.graphs.items()}
        if self.recorded:
            part = export.Exported(source, whole.precision, last, self._on_processor(name))
            inputs: dict[str, str | Stage[Any]] = {"weights": self.networks.weights(whole.source.name), "record": self.recorded}
            outputs = export.measured(part, self.recorded, self._options(name), inputs)
        built = self._engines(name, graphs, whole.graphs) if whole.engines else {}
        return PartStages(source, whole.precision, outputs, graphs, built, None)

    @property
    def _recordings(self) -> dict[str, Stage[RecordingFolder]]:
        """What was recorded, as keys name it."""
        found = {"record": self.recorded, "reference": self.reference if self.networks.last else None}
        return {name: stage for name, stage in found.items() if stage}

    def _engines(
        self, name: str, graphs: Mapping[int, Stage[GraphFiles]], weights: Mapping[int, Stage[GraphFiles]] | None = None
    ) -> Mapping[str, Stage[BuiltEngine]]:
        return {
            target: engines.built(
                name, target, each, graphs[each.opset], self.family, weights=weights[each.opset] if weights else None
            )
            for target, each in self.targets[name].items()
        }

    def _quantized(
        self,
        name: str,
        asked: precision.PartPrecision,
        outputs: Stage[PartOutputs] | None,
        graphs: Mapping[int, Stage[GraphFiles]],
    ) -> tuple[QuantizedPart, Mapping[str, Stage[BuiltEngine]]]:
        """The stages that quantize a part, and the engines of what they make."""
        part, weights = self._quantizable(name), self.networks.weights(name)
        calibrate = partial(quantize.calibrated, part, weights=weights, reference=self.reference, recorded=self._recordings)
        calibrations = {opset: calibrate(opset, graph) for opset, graph in graphs.items()}
        made = {opset: quantize.quantized(part, opset, graph, calibrations[opset]) for opset, graph in graphs.items()}
        built = self._engines(name, made)
        rivals = {target: quantize.rival(part, target, graphs[each.opset]) for target, each in part.targets.items()}
        pairs = {opset: (made[opset], graph) for opset, graph in graphs.items()}
        contest = quantize.Contest(pairs, {target: (built[target], rivals[target]) for target in built}, outputs)
        gate = quantize.gate(part, contest, asked)
        return quantize.QuantizedPart(part.step, calibrations, made, rivals, gate), built

    def _whole(self, name: str, steps: int) -> PipelineStages:
        sampler, opsets = self.tables.samplers[steps], self.opsets(name)
        parts = {opset: {part: self.parts[part].graphs[opset] for part in self.family.roles} for opset in opsets}
        graphs = {opset: fused.unrolled(name, opset, self.family, parts[opset], sampler) for opset in opsets}
        built = {
            target: fused.built(name, target, backend, graphs[backend.opset], sampler, self.family, parts[backend.opset])
            for target, backend in self.targets[name].items()
        }
        return PipelineStages(steps, graphs, built)


def _backends(targets: Iterable[Mapping[str, Any]]) -> dict[str, Backend]:
    """Name → constructed options."""
    named = [named for target in targets for named in target.items()]
    return {name: plugins.load("backends", name).model_validate(options) for name, options in named}
