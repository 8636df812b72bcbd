"""A recipe's passes: constructed, in order, and what becomes of the networks that they remake."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import plugins
from engines.errors import RecipeError
from exporter.models import classifier
from exporter.models.checkpoint import network, placed
from exporter.models.compatibility import borrow, teacher
from exporter.models.sampler_compat import made_by_passes
from exporter.recipe.pass_options import REMAKING
from exporter.training import context

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.backends import Backend
    from exporter.families import Family
    from exporter.models.checkpoint import Checkpoint
    from exporter.part import Case, Part, Precision
    from exporter.passes import Pass
    from exporter.recipe.schema import Recipe

Done = Mapping[tuple[str, str], Path]


class Passes:
    """The passes of every part; those that remake a network come first, and what they make is kept in the store.

    Attributes:
        of: part → its passes, name → constructed options, in the recipe's order.
        remade: part → names of the passes that make another network of it, each from the one before; others are left out.
        quantized: part → the pass that works on its exported graph; others are left out.

    Raises:
        RecipeError: a pass stands twice, or one that remakes stands behind one that does not.

    """

    def __init__(self, recipe: Recipe, family: Family) -> None:
        self.family = family
        #: Other models that passes take from, found while planning, since the keys name their content.
        self._others: dict[tuple[str, str, str], Checkpoint] = {}
        self.of: dict[str, dict[str, Pass]] = {}
        problems: list[str] = []
        for part, component in recipe.components.items():
            steps = self.of[part] = {}
            for index, (name, options) in enumerate(pair for step in component.passes for pair in step.items()):
                where = f"components.{part}.passes.{index}: {name}"
                step: Pass = plugins.load("passes", name).model_validate(options)
                if name in steps:
                    problems.append(f"{where} stands twice; keep one")
                if step.kind in REMAKING and not all(other.kind in REMAKING for other in steps.values()):
                    problems.append(f"{where} makes another network, so it stands before {next(iter(steps))}")
                role = family.roles.get(part)
                if step.kind == "training" and role not in {"denoiser", "decoder"}:
                    problems.append(f"{where} teaches UNets and VAE decoders; leave it out")
                if step.kind == "training" and role == "decoder" and not steps:
                    problems.append(f"{where} has no student that differs from the source; put a swap before it")
                if step.kind == "swap" and steps:
                    problems.append(f"{where} would undo what {next(iter(steps))} made; it stands first")
                if step.kind == "graph" and any(other.kind == "graph" for other in steps.values()):
                    problems.append(f"{where} works on the graph that {list(steps)[-1]} has quantized; keep one")
                steps[name] = step
        if problems:
            raise RecipeError(problems)
        found = {part: tuple(name for name, step in steps.items() if step.kind in REMAKING) for part, steps in self.of.items()}
        self.remade: Mapping[str, tuple[str, ...]] = {part: names for part, names in found.items() if names}
        graph = {part: [step for step in steps.values() if step.kind == "graph"] for part, steps in self.of.items()}
        self.quantized: Mapping[str, Any] = {part: steps[0] for part, steps in graph.items() if steps}

    @cached_property
    def outline(self) -> Family:
        """The family over the networks that the passes make, as far as their configs tell: enough to count.

        Raises:
            UnsupportedError: a pass cannot remake its network.

        """
        checkpoint = self.family.checkpoint
        for part, names in self.remade.items():
            checkpoint = replace(checkpoint, configs=placed(checkpoint.configs, part, self._outlined(part, names)[0]))
        return self.family.replacing(checkpoint=checkpoint)

    @property
    def untold(self) -> list[str]:
        """Parts whose size is known only when their passes have run."""
        return [part for part, names in self.remade.items() if not self._outlined(part, names)[1]]

    def _outlined(self, part: str, names: tuple[str, ...]) -> tuple[Mapping[str, Any], bool]:
        """Config that the passes leave, as far as it can be told, and whether that is all the way."""
        checkpoint, told = self.family.checkpoint, True
        config: Mapping[str, Any] = checkpoint.named(network(part))
        for name in names:
            step = self.of[part][name]
            made = self.borrowed(part, name).named(part) if step.kind == "swap" else step.config(config)
            config, told = made or config, told and made is not None
        return config, told

    def borrowed(self, part: str, name: str) -> Checkpoint:
        """The source with the network in the part's place that a pass takes from elsewhere.

        Raises:
            RecipeError, UnsupportedError: there is none, or it does not fit.

        """
        if (found := self._others.get((part, name, "network"))) is None:
            step: Any = self.of[part][name]
            found = borrow(step, part, self.family.checkpoint, self.family.recipe.root, self._place(part, name))
            self._others[part, name, "network"] = found
        return found

    @property
    def source(self) -> Family:
        """The source's family, whose sampler reads the source's answers as they are meant, whatever a pass makes of them."""
        made, recipe = made_by_passes(self.family.recipe), self.family.recipe
        if made is None or not made.prediction:
            return self.family
        config = {key: value for key, value in recipe.sampler.config.items() if key != "prediction_type"}
        sampler = recipe.sampler.model_copy(update={"config": config})
        return self.family.replacing(recipe=recipe.model_copy(update={"sampler": sampler}))

    def refuse(self, targets: Mapping[str, Mapping[str, Backend]]) -> None:
        """Raise UnsupportedError for a pass that cannot remake its network, or of which no target of its part can make use."""
        _ = self.outline
        for part, steps in self.of.items():
            for step in steps.values():
                if hasattr(step, "suits"):
                    step.suits(part, targets[part])

    def waits(self, part: str) -> bool:
        """Whether a pass of the part must see what the source does."""
        return any(step.recorded for step in self.of.get(part, {}).values())

    def told(self, part: str) -> tuple[str, ...]:
        """The part's passes as the blame table shows them."""
        steps = self.of.get(part, {})
        untaught = part in self.remade and not any(step.kind in {"training", "swap"} for step in steps.values())
        return (*(step.told for step in steps.values()), *(["not distilled"] if untaught else []))

    def made(self, done: Done, only: Mapping[str, tuple[str, ...]] | None = None) -> Family:
        """The family over the networks that the passes made, or that the passes named made."""
        checkpoint = self.family.checkpoint
        for part, names in (self.remade if only is None else only).items():
            if names:
                checkpoint = checkpoint.having(part, done["pass", f"{part}, {names[-1]}"])
        return self.family.replacing(checkpoint=checkpoint)

    def part(self, name: str, precision: Precision, done: Done) -> Part:
        """Load a part as all its passes leave it."""
        part = (self.made(done) if self.remade else self.family).part(name, precision)
        # The source's own contract, where that of a smaller network would be wider: the recordings are the source's.
        part = replace(part, signature=self.family.signature(name))
        for step in self.of.get(name, {}).values():
            part = step(part) if step.kind == "weights" else part
        return part

    def maker(self, part_name: str, name: str) -> Callable[[Path, str, str, Done], None]:
        """What lets one pass make its network, from what the one before it made, and keeps it as diffusers keeps networks."""
        return {"swap": self.swap, "training": self.teach}.get(self.of[part_name][name].kind, self.change)

    def swap(self, folder: Path, part_name: str, name: str, _done: Done) -> None:
        """Keep the network that stands in the source's place."""
        other = self._others[part_name, name, "network"]
        other.module(part_name).save_pretrained(folder)
        told = ", ".join(f"{key} {value}" for key, value in other.provenance.items())
        _keep(folder, [f"{part_name}: the network is another model's: {told}"], {})

    def teach(self, folder: Path, part_name: str, name: str, done: Done) -> None:
        """Train the network."""
        step: Any = self.of[part_name][name]
        before = self.before(part_name, name)
        student = context.plain(self.family, self.made(done, {part_name: before}).checkpoint).part(part_name, "fp32")
        made = step.teach(student, self._lesson(part_name, name, before, done))
        shutil.copy(done["unfinished", f"{part_name}, {name}"] / "curve.jsonl", folder / "curve.jsonl")
        if network(part_name) == "vae":  # the half that nobody taught stays what it was
            whole = self.made(done, {part_name: before}).checkpoint.module(part_name)
            whole.load_state_dict({**whole.state_dict(), **made.network.state_dict()})
            made = made.having(whole)
        made.network.save_pretrained(folder)
        _keep(folder, made.notes, dict(made.findings))

    def change(self, folder: Path, part_name: str, name: str, done: Done) -> None:
        """Make another network of the one that is there."""
        step = self.of[part_name][name]
        part = self.made(done, {part_name: self.before(part_name, name)}).part(part_name, "fp32")
        part = replace(part, signature=self.family.signature(part_name))
        made = step(replace(part, cases=seen(part_name, done["record", "source"])) if step.recorded else part)
        made.network.save_pretrained(folder)
        _keep(folder, made.notes, dict(made.findings))

    def before(self, part_name: str, name: str) -> tuple[str, ...]:
        """The passes whose network a pass is given."""
        names = self.remade[part_name]
        return names[: names.index(name)]

    def encode(self, folder: Path, part_name: str, name: str) -> None:
        """Encode the pictures that a pass learns from, and their captions."""
        step: Any = self.of[part_name][name]
        pictures = context.found(step, self.family.recipe, self._place(part_name, name))
        family = context.steered(step, self.family)
        context.encode(family, self.family.recipe, pictures, folder, texts=self._reads(part_name))

    def keyed(self, part_name: str, name: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Options and inputs of `encode`; the passes that train have such a stage before them.

        Raises:
            RecipeError: pictures and captions do not belong together.

        """
        step: Any = self.of[part_name][name]
        place = self._place(part_name, name)
        return context.keyed(step, self.family.recipe, self.family.checkpoint, place, texts=self._reads(part_name))

    def _reads(self, part_name: str) -> bool:
        """Whether the part takes what the text towers make of captions."""
        return self.family.roles[part_name] == "denoiser"

    def taught(self, part_name: str, name: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Options of a pass that trains, and digests of whom it learns from."""
        step: Any = self.of[part_name][name]
        found = teacher(step.teacher, self.family.checkpoint, self.family.recipe.root, f"{step.verb}.teacher")
        self._others[part_name, name, "teacher"] = found
        digests = {each: found.digest(each) for each in (network(part_name), "scheduler")}
        digests |= {"schedule": self.family.checkpoint.digest("scheduler")}
        if step.sees:
            where = f"{self._place(part_name, name)}.classifier.source"
            seen = classifier.find(step.sees.source, step.sees.revision, self.family.recipe.root, where)
            self._others[part_name, name, "classifier"] = seen
            digests |= {each: seen.digest(each) for each in (classifier.CLASSIFIER, classifier.PREPROCESSOR)}
            digests |= {"decoder": self.family.checkpoint.digest("vae")}
        return context.options_of(step), digests

    def plays(self, part_name: str, name: str) -> Mapping[str, Any] | None:
        """Options of the teacher's trajectories, where a pass learns from such."""
        step: Any = self.of[part_name][name]
        return step.played if step.plays else None

    def play(self, folder: Path, part_name: str, name: str, done: Done) -> None:
        """Let the teacher play the trajectories that a pass learns from."""
        from exporter.training.teacher_rollouts import play  # noqa: PLC0415 - torch

        step: Any = self.of[part_name][name]
        play(step, self._lesson(part_name, name, (), done), folder)

    def _lesson(self, part_name: str, name: str, before: tuple[str, ...], done: Done) -> context.Lesson:
        step: Any = self.of[part_name][name]
        checkpoint = self.family.checkpoint
        source = self._others[part_name, name, "teacher"]
        denoiser = context.plain(self.family, source)
        folders = {each: done["pass", f"{part_name}, {each}"] for each in before}
        return context.Lesson(
            teacher=denoiser.part(part_name, "fp32"),
            schedule=checkpoint.configs["scheduler"],
            encoded=done["encode", f"{part_name}, {name}"],
            ports=tuple(port.name for port in denoiser.signature(part_name).inputs[2:]),
            moved=context.came(self.of[part_name], source.configs[network(part_name)], folders),
            kept=done.get(("unfinished", f"{part_name}, {name}"), Path()),
            say=_say,
            played=done.get(("play", f"{part_name}, {name}")),
            sight=(self._others[part_name, name, "classifier"], self.family.part("vae_decoder", "fp32")) if step.sees else None,
        )

    def _place(self, part_name: str, name: str) -> str:
        index = next(i for i, each in enumerate(self.family.recipe.components[part_name].passes) if name in each)
        return f"components.{part_name}.passes.{index}.{name}"


def _say(line: str) -> None:
    """Tell how a training goes, beside what the command prints."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _keep(folder: Path, notes: Sequence[str], findings: Mapping[str, Any]) -> None:
    """Write what a pass has to say beside the network that it made."""
    (folder / "found.txt").write_text(json.dumps({"notes": notes, "findings": findings}, indent=1) + "\n")


def seen(name: str, folder: Path) -> tuple[Case, ...]:
    """Every call of the denoiser in every recorded run; of another part, the calls that were recorded."""
    from exporter.reference.recording import load_cases, load_run, trajectory  # noqa: PLC0415 - numpy

    cases = load_cases(folder / f"{name}.npz")
    if not cases or "timestep" not in cases[0].inputs:
        return cases
    runs = [load_run(file) for file in sorted(folder.glob("run_*.npz"))]
    first = {run.setting.label: next(case for case in cases if case.label.startswith(f"{run.setting.label}, ")) for run in runs}
    return tuple(case for run in runs for case in trajectory(run, first[run.setting.label]))
