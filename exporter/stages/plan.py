"""What a build will do: every stage with its content key, known before anything heavy is imported."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import plugins
from engines.errors import RecipeError, UnsupportedError
from exporter import graph
from exporter.families import Family, claim
from exporter.models.checkpoint import network, resolve
from exporter.models.sampler_compat import judge
from exporter.onnx import target_ops
from exporter.parity import metrics
from exporter.stages.fused import Wholes
from exporter.stages.keys import key_of
from exporter.stages.passes import Done, Passes
from exporter.stages.precision import Precisions
from exporter.stages.quantize import Quantized, digest_of
from exporter.stages.store import Key

if TYPE_CHECKING:
    from engines.backends import Backend
    from engines.samplers.table import Table
    from exporter.part import Part, Precision
    from exporter.recipe.schema import Recipe
    from exporter.reference.recording import Recording


@dataclass(frozen=True)
class Stage:
    """One memoised step: what it does, for whom, under which key, and how; `make(folder, done)` fills an empty folder.

    One that `resumes` finds in `done["unfinished", subject]` a folder in which it leaves off.
    """

    verb: str
    subject: str
    key: Key
    make: Callable[[Path, Done], None]
    resumes: bool = False

    @property
    def name(self) -> tuple[str, str]:
        """How later stages find this one's folder."""
        return self.verb, self.subject


class Plan:
    """A recipe's stages, in an order in which each finds what it needs.

    Attributes:
        recipe: what was asked.
        checkpoint: where the weights are.
        family: how the networks are wrapped.
        targets: part → name → constructed options, in the recipe's order; a part may have one of its own.
        passes: of every part.
        precisions: of every part.
        pairing: what the model was made for, and what is unusual about the sampler.

    Raises:
        RecipeError: the recipe does not fit the model, or its sampler is one that the model was not made for.

    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.checkpoint = resolve(recipe.model, recipe.root)
        self.pairing = judge(recipe, self.checkpoint)
        try:
            self.family = claim(self.checkpoint, recipe)
        except RecipeError as error:
            raise RecipeError([*error.problems, *self.pairing.problems]) from error
        if problems := [*self.pairing.problems, *metrics.problems(recipe.checks.limits)]:
            raise RecipeError(problems)
        self.notes = (*self.checkpoint.notes, *self.family.notes, *self.pairing.notes)
        self.wholes = Wholes(recipe, self.family)
        shared = _backends(recipe.targets)
        own = {name: self._component(name).target for name in (*self.family.roles, *self.wholes.steps)}
        self.targets = {name: shared if target is None else _backends([target]) for name, target in own.items()}
        self.passes = Passes(recipe, self.family)
        self.precisions = Precisions(self)
        self.quantized = Quantized(self)
        self._held: tuple[str, Part] | None = None

    def refuse(self) -> None:
        """Raise UnsupportedError for what no engine can be and no pass can do, before time is spent."""
        self.passes.refuse(self.targets)
        for name in self.family.roles:
            asked = self._component(name).precision
            for backend in self.targets[name].values():
                backend.refuse("fp16" if asked in {"auto", "mixed"} else asked)
        self.precisions.refuse()
        self.quantized.refuse()

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage but the last, `check`; a part's own stages stand together, so that its weights are loaded once."""
        return tuple(self._stages())

    def opsets(self, name: str) -> tuple[int, ...]:
        """Operator sets that a part's backends want, each once."""
        return tuple(sorted({backend.opset for backend in self.targets[name].values()}))

    @property
    def reference(self) -> tuple[str, str]:
        """The recording that pictures are held to: of the source, or of the pipeline with the networks that passes made."""
        return "record", "passes" if self.passes.remade else "source"

    def waits(self, name: str) -> bool:
        """Whether a part cannot be exported before the source was recorded."""
        return self.precisions.measured(name) or self.passes.waits(name)

    def digest(self, name: str) -> str | None:
        """Digest of a part's weights; None where a pass has yet to make them."""
        return digest_of(self, name)

    def precision(self, name: str, done: Done) -> Precision:
        """A part's precision; `auto` is resolved by measurement."""
        return self.precisions.of(name, done)

    def on_processor(self, name: str) -> bool:
        """Whether every engine of a part runs on a processor; of a fused pipeline's part, every engine of the pipeline."""
        return all(backend.on_processor for each in (name, *self.wholes.steps) for backend in self.targets[each].values())

    def _fused(self, name: str, opset: int) -> tuple[str, ...]:
        return target_ops.fused(self.targets[name].values(), opset, self.recipe.pipeline)

    def last_stage(self, verb: str, options: Mapping[str, Any], make: Callable[[Path, Done], None], *makers: object) -> Stage:
        """One of those that judge the bundle, and so depend on everything that is in it and on who laid it out."""
        before = {f"{stage.verb} {stage.subject}": str(stage.key) for stage in self.stages}
        kinds = {type(backend) for backends in self.targets.values() for backend in backends.values()}
        everyone = {make, *makers, *kinds, "engines.samplers.table"}
        return Stage(verb, "bundle", key_of(verb, "bundle", options, before, everyone), make)

    def loaders(self, name: str) -> tuple[object, ...]:
        """Who loads a part as its passes leave it: makers of every stage for which it is loaded."""
        kinds = (type(step) for step in self.passes.of.get(name, {}).values() if not (step.remakes or hasattr(step, "on_graph")))
        return (self.passes.part, self.precisions.of, self.precisions.single, *self._model, *kinds)

    def _component(self, name: str) -> Any:  # noqa: ANN401 - recipe.Component, which lives behind TYPE_CHECKING here
        from exporter.recipe.schema import Component  # noqa: PLC0415 - a plan is made from a recipe, which has loaded it

        return self.recipe.components.get(name, Component())

    def _stages(self) -> Iterator[Stage]:
        recipe, everything = self.recipe, {name: self.checkpoint.digest(name) for name in self._networks}
        for name in self.family.towers.values():
            stage_key = key_of("tokenize", name, {}, {name: self.checkpoint.digest(name)}, (self._tokenize, *self._model))
            yield Stage("tokenize", name, stage_key, lambda folder, _done, name=name: self._tokenize(folder, name))
        compiled: dict[tuple[str, str], Key] = {}
        schedule = {"scheduler": self.checkpoint.digest("scheduler")}
        for steps in recipe.sampler.steps:
            options = recipe.sampler.model_dump(mode="json", exclude={"steps", "guidance", "force"}) | {"steps": steps}
            options |= {"size": [recipe.shapes.height[1], recipe.shapes.width[1]], "edits": self.edits}
            options["driving"] = asdict(self.family.driving)
            sampler_key = key_of("compile", f"{steps} steps", options, schedule, [self._compile])
            compiled["compile", f"{steps} steps"] = sampler_key
            yield Stage("compile", f"{steps} steps", sampler_key, lambda folder, _done, steps=steps: self._compile(folder, steps))
            if self.edits:
                name = f"{steps} steps from an image"
                starts_key = key_of("compile", name, options, schedule, [self._compile_starts])
                yield Stage("compile", name, starts_key, lambda folder, _done, steps=steps: self._compile_starts(folder, steps))
        options = recipe.sampler.model_dump(mode="json", include={"scheduler", "config"})
        process_key = key_of("process", "scheduler", options, schedule, [self._process])
        yield Stage("process", "scheduler", process_key, lambda folder, _done: self._process(folder))
        recorded: dict[str, str] = {}
        options = recipe.model_dump(mode="json", include={"sampler", "shapes", "prompts"}, exclude={"sampler": {"force"}})
        options |= recipe.checks.model_dump(mode="json", exclude={"limits", "faster_than"}) | {"parts": sorted(self.family.roles)}
        options |= {"tile": str(self._component("vae_decoder").tile)}
        if not recipe.checks.skip:
            source = options | {"config": dict(self.passes.source.recipe.sampler.config)}
            record_key = key_of("record", "source", source, everything, (self._record, *self._model))
            recorded = {"record": str(record_key)}
            yield Stage("record", "source", record_key, lambda folder, _done: self._record(folder, self.passes.source))
        made: dict[str, str] = {}
        for name in self.passes.remade:
            for stage in self._pass_stages(name, recorded):
                made[name] = str(stage.key)
                yield stage
        if recorded and made:
            record_key = key_of("record", "passes", options, everything | made, (self._record, self.passes.made, *self._model))
            recorded = recorded | {"reference": str(record_key)}
            yield Stage("record", "passes", record_key, lambda folder, done: self._record(folder, self.passes.made(done)))
        exported: dict[tuple[str, str], Key] = dict(compiled)
        # The denoiser last: by far the longest, and a second process may already be at it.
        for name in sorted(self.family.roles, key=lambda name: self.family.roles[name] == "denoiser"):
            for stage in self._part_stages(name, recorded, made.get(name) or self.checkpoint.digest(network(name))):
                exported[stage.name] = stage.key
                yield stage
        yield from self._fused_stages(exported)

    def _pass_stages(self, name: str, recorded: Mapping[str, str]) -> Iterator[Stage]:
        """One for each pass that makes another network, which is kept, because making one may take long."""
        digest = self.checkpoint.digest(network(name))
        for pass_name in self.passes.remade[name]:
            step = self.passes.of[name][pass_name]
            if step.recorded and not recorded:
                raise RecipeError(
                    f"checks.skip: {pass_name} of {name} has to see what the source does, so that is recorded; leave it out"
                )
            options = step.model_dump(mode="json")  # type: ignore[attr-defined]  # a plugin's options are a Frozen
            inputs = {"weights": digest} | (recorded if step.recorded else {})
            if step.swaps:
                inputs = {"network": self.passes.borrowed(name, pass_name).digest(name)}
            if step.trains:
                encode_key = key_of("encode", "pictures", *self.passes.keyed(name, pass_name), (self.passes.encode, *self._model))
                encode = lambda folder, _done, pass_name=pass_name: self.passes.encode(folder, name, pass_name)  # noqa: E731
                yield Stage("encode", f"{name}, {pass_name}", encode_key, encode)
                options, teacher = self.passes.taught(name, pass_name)
                inputs |= {"pictures": str(encode_key), **{f"teacher {each}": digest for each, digest in teacher.items()}}
                if (played := self.passes.plays(name, pass_name)) is not None:
                    known = {key: inputs[key] for key in inputs if key != "weights"}
                    play_key = key_of("play", name, played, known, (self.passes.play, *self._model))
                    play = lambda folder, done, pass_name=pass_name: self.passes.play(folder, name, pass_name, done)  # noqa: E731
                    yield Stage("play", f"{name}, {pass_name}", play_key, play)
                    inputs |= {"played": str(play_key)}
            maker, before = self.passes.maker(name, pass_name), self.passes.before(name, pass_name)
            kinds = {type(self.passes.of[name][each]) for each in (*before, pass_name)}
            stage_key = key_of("pass", f"{name}, {pass_name}", options, inputs, (maker, *kinds, *self._model))
            make = lambda folder, done, maker=maker, pass_name=pass_name: maker(folder, name, pass_name, done)  # noqa: E731
            yield Stage("pass", f"{name}, {pass_name}", stage_key, make, resumes=step.trains)
            digest = str(stage_key)

    def _part_stages(self, name: str, recorded: Mapping[str, str], digest: str) -> Iterator[Stage]:
        """Measure, export, then engines: the torch module is let go before the engines need the memory."""
        component = self._component(name)
        weights = {"weights": digest}
        options = component.model_dump(mode="json", exclude={"target"})
        options["passes"] = [step for step in options["passes"] if not step.keys() & {"quantize"}]  # which works on the graph
        options |= {"signature": self.family.signature(name).model_dump(mode="json")}
        guidance = self.recipe.sampler.guidance
        options |= {"guidance": guidance.mode, **({"rescale": guidance.rescale} if guidance.rescale else {})}
        options |= {"prompts": self.recipe.prompts.model_dump(mode="json")} if self.family.roles[name] == "text" else {}
        measured = self.precisions.measured(name)
        inputs = weights | (dict(recorded) if measured else {})
        if recorded:
            for row in self.precisions.stages(name, options, inputs):
                yield (stage := Stage(*row))
                inputs |= {"islands": str(stage.key)}
            inputs_seen = inputs if measured else weights | {"record": recorded["record"]}
            wanted, makers = options | {"processor": self.on_processor(name)}, (self._measure, *self.loaders(name))
            measure_key = key_of("measure", name, wanted, inputs_seen, makers)
            yield Stage("measure", name, measure_key, lambda folder, done: self._measure(folder, name, done))
        for opset in self.opsets(name):
            processor, fused = self.on_processor(name), self._fused(name, opset)
            wanted = options | {"opset": opset, "processor": processor, "fused": fused}
            passes = (f"exporter.graph.{each}" for each in graph.order(processor=processor, fused=fused))
            makers = (self._export, *self.loaders(name), *passes)
            export_key = key_of("export", f"{name}, opset {opset}", wanted, inputs, makers)
            make = lambda folder, done, opset=opset: self._export(folder, name, opset, done)  # noqa: E731
            yield Stage("export", f"{name}, opset {opset}", export_key, make)
            written, made = export_key, dict[tuple[str, str], Key]()
            if recorded:
                made["measure", name] = measure_key
            for row in self.quantized.stages(name, opset, export_key, recorded, digest):
                yield (stage := Stage(*row))
                written = stage.key
            if self.recipe.pipeline == "stepped":
                engines = self._engine_stages(name, opset, written)
                for stage in (*engines, *(Stage(*row) for row in self.quantized.rivals(name, opset, export_key))):
                    made[stage.name] = stage.key
                    yield stage
                yield from (Stage(*row) for row in self.quantized.weighing(name, made))

    def _engine_stages(self, name: str, opset: int, written: Key) -> Iterator[Stage]:
        """One for each target that wants the graph of this operator set."""
        for target, backend in self.targets[name].items():
            if backend.opset == opset:
                options, versions = backend.model_dump(mode="json"), {target: backend.version}
                makers = (self._engine, type(self.family), type(backend), *self.wholes.makers(name))
                stage_key = key_of("engine", f"{name}, {target}", options, {"export": str(written)}, makers, versions)
                make = lambda folder, done, target=target: self._engine(folder, name, target, done)  # noqa: E731
                yield Stage("engine", f"{name}, {target}", stage_key, make)

    def _fused_stages(self, made: Mapping[tuple[str, str], Key]) -> Iterator[Stage]:
        """Join the parts' graphs around each sampler, then engines of the whole."""
        for name, steps in self.wholes.steps.items():
            for opset in self.opsets(name):
                inputs = {part: str(made["export", f"{part}, opset {opset}"]) for part in self.family.roles}
                inputs |= {"sampler": str(made["compile", f"{steps} steps"])}
                unroll_key = key_of("unroll", f"{name}, opset {opset}", {}, inputs, (self.wholes.make, type(self.family)))
                make = lambda folder, done, name=name, opset=opset: self.wholes.make(folder, name, opset, done)  # noqa: E731
                yield Stage("unroll", f"{name}, opset {opset}", unroll_key, make)
                yield from self._engine_stages(name, opset, unroll_key)

    @property
    def _model(self) -> tuple[type, ...]:
        """Classes of what the model is known by, wherever a maker is given it."""
        return type(self.family), type(self.checkpoint)

    @cached_property
    def _networks(self) -> list[str]:
        return sorted({network(name) for name in self.family.roles})

    # What each stage does. Heavy imports stand here, so that a plan whose every stage is in the store loads no torch.

    def _tokenize(self, folder: Path, name: str) -> None:
        entry, text = self.family.tokenizers()[name]
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
        (folder / "entry.txt").write_text(entry.model_dump_json(), encoding="utf-8")

    @property
    def edits(self) -> bool:
        """Whether the bundle can start from an image: the recipe names its encoder."""
        return "encoder" in self.family.roles.values()

    def table(self, steps: int) -> Table:
        """Compile the sampler at a number of steps.

        Raises:
            RecipeError, UnsupportedError: there is no such scheduler, or none such as the recipe wants it.

        """
        from exporter.schedulers.compile_sampler import compile_sampler, configure  # noqa: PLC0415
        from exporter.schedulers.loop import refuse_given  # noqa: PLC0415

        name, arguments = self._sampler()
        if self.edits:
            refuse_given(configure(name, steps=steps, **arguments).make())
        return compile_sampler(name, steps=steps, **arguments)

    def _sampler(self) -> tuple[str, dict[str, Any]]:
        """Name of the scheduler, and the arguments of `configure` that the number of steps leaves open."""
        sampler, own = self.recipe.sampler, self.checkpoint.configs["scheduler"]
        sizes = {"height": self.recipe.shapes.height[1], "width": self.recipe.shapes.width[1]}
        options = {"config": sampler.config, "own": own, "step": sampler.step}
        options |= {"timesteps": sampler.timesteps, "sigmas": sampler.sigmas}
        return sampler.scheduler or own["_class_name"], {**options, **sizes, "driving": self.family.driving}

    def _compile(self, folder: Path, steps: int) -> None:
        self.table(steps).dump(folder / f"{steps}.json")

    def _compile_starts(self, folder: Path, steps: int) -> None:
        from exporter.schedulers.compile_sampler import configure  # noqa: PLC0415

        name, arguments = self._sampler()
        configure(name, steps=steps, **arguments).starts().dump(folder / f"{steps}-image.json")

    def _process(self, folder: Path) -> None:
        from exporter.schedulers.noise_schedule import compile_process  # noqa: PLC0415

        sampler, own = self.recipe.sampler, self.checkpoint.configs["scheduler"]
        try:
            process = compile_process(sampler.scheduler or own["_class_name"], sampler.config, own)
        except UnsupportedError as error:
            (folder / "absent.txt").write_text(f"{error}\n", encoding="utf-8")
            return
        process.dump(folder / "process.json")

    def _record(self, folder: Path, family: Family) -> None:
        from exporter.reference.record import record  # noqa: PLC0415
        from exporter.reference.recording import save_cases, save_run  # noqa: PLC0415

        recording: Recording = record(family, self.recipe)
        for number, run in enumerate(recording.runs):
            save_run(run, folder / f"run_{number}.npz")
        for name, cases in recording.cases.items():
            save_cases(cases, folder / f"{name}.npz")
        (folder / "ranges.json").write_text(json.dumps(dict(recording.ranges), indent=2, sort_keys=True) + "\n")

    def _part(self, name: str, done: Done) -> Part:
        """Load, wrap and pass; keep the last one, since its stages follow each other."""
        if self._held is None or self._held[0] != name:
            self._held = None
            part = self.passes.part(name, self.precision(name, done), done)
            self._held = name, replace(part, single=self.precisions.single(name, done))
        return self._held[1]

    def _measure(self, folder: Path, name: str, done: Done) -> None:
        from exporter.reference.part_outputs import measure  # noqa: PLC0415
        from exporter.reference.recording import load_cases, save_cases  # noqa: PLC0415

        cases = load_cases(done["record", "source"] / f"{name}.npz")
        save_cases(measure(self._part(name, done), cases), folder / f"{name}.npz")

    def _export(self, folder: Path, name: str, opset: int, done: Done) -> None:
        from exporter.onnx.export import export, save  # noqa: PLC0415

        part = self._part(name, done)
        exported = export(part, opset, processor=self.on_processor(name), fused=self._fused(name, opset))
        if opset == self.opsets(name)[-1]:
            self._held = None
        save(exported, folder / f"{name}.onnx")
        parameters = sum(parameter.numel() for parameter in part.module.parameters())
        facts = {"precision": part.precision, "parameters": parameters, "nodes_exported": exported.nodes_exported}
        (folder / "facts.txt").write_text(json.dumps(facts | {"nodes": exported.nodes}, indent=2, sort_keys=True) + "\n")

    def _engine(self, folder: Path, name: str, target: str, done: Done) -> None:
        gc.collect()  # the exported network is a knot of references, as large as the memory that a builder may want
        backend = self.targets[name][target]
        if name in self.wholes.steps:
            with self.wholes.beside_weights(name, backend.opset, folder, done) as graph:
                backend.build(graph, self.wholes.signature(name, done), folder)
            return
        verb = "quantize" if name in self.quantized.of else "export"
        backend.build(done[verb, f"{name}, opset {backend.opset}"] / f"{name}.onnx", self.family.signature(name), folder)


def _backends(targets: Iterable[Mapping[str, Any]]) -> dict[str, Backend]:
    """Name → constructed options."""
    named = [named for target in targets for named in target.items()]
    return {name: plugins.load("backends", name).model_validate(options) for name, options in named}
