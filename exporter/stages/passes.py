"""A recipe's passes: constructed, in order, and what becomes of the networks that they remake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
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
    from engines.backends import Backend
    from exporter.families import Family
    from exporter.models.checkpoint import Checkpoint
    from exporter.passes import Pass
    from exporter.recipe.schema import Recipe


@dataclass(frozen=True)
class Teachers:
    """Whom a pass that trains learns from.

    Attributes:
        teacher: its networks teach.
        classifier: what the pass looks at its images with, where it does.
        digests: of all that is used of them, for the key.

    """

    teacher: Checkpoint
    classifier: Checkpoint | None
    digests: Mapping[str, str]


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
        self._others: dict[tuple[str, str], Checkpoint] = {}
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
    def expected_family(self) -> Family:
        """The family over the networks that the passes make, as far as their configs tell: enough to count.

        Raises:
            UnsupportedError: a pass cannot remake its network.

        """
        checkpoint = self.family.checkpoint
        for part, names in self.remade.items():
            checkpoint = replace(checkpoint, configs=placed(checkpoint.configs, part, self._outlined(part, names)[0]))
        return self.family.replacing(checkpoint=checkpoint)

    @property
    def size_unknown(self) -> list[str]:
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
        if (found := self._others.get((part, name))) is None:
            step: Any = self.of[part][name]
            found = borrow(step, part, self.family.checkpoint, self.family.recipe.root, self.place(part, name))
            self._others[part, name] = found
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
        _ = self.expected_family
        for part, steps in self.of.items():
            for step in steps.values():
                if hasattr(step, "suits"):
                    step.suits(part, targets[part])

    def waits(self, part: str) -> bool:
        """Whether a pass of the part must see what the source does."""
        return any(step.recorded for step in self.of.get(part, {}).values())

    def summaries(self, part: str) -> tuple[str, ...]:
        """The part's passes as the blame table shows them."""
        steps = self.of.get(part, {})
        untaught = part in self.remade and not any(step.kind in {"training", "swap"} for step in steps.values())
        return (*(step.summary for step in steps.values()), *(["not distilled"] if untaught else []))

    def keyed(self, part_name: str, name: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Options and inputs of `encode`; the passes that train have such a stage before them.

        Raises:
            RecipeError: pictures and captions do not belong together.

        """
        step: Any = self.of[part_name][name]
        place = self.place(part_name, name)
        return context.keyed(step, self.family.recipe, self.family.checkpoint, place, texts=self.reads(part_name))

    def reads(self, part_name: str) -> bool:
        """Whether the part takes what the text towers make of captions."""
        return self.family.roles[part_name] == "denoiser"

    def teachers(self, part: str, name: str) -> Teachers:
        """Whom a pass that trains learns from.

        Raises:
            RecipeError, UnsupportedError: there is nobody, or nobody who fits.

        """
        step: Any = self.of[part][name]
        checkpoint, root = self.family.checkpoint, self.family.recipe.root
        found, seen = teacher(step.teacher, checkpoint, root, f"{step.verb}.teacher"), None
        digests = {each: found.digest(each) for each in (network(part), "scheduler")}
        digests |= {"schedule": checkpoint.digest("scheduler")}
        if step.sees:
            where = f"{self.place(part, name)}.classifier.source"
            seen = classifier.find(step.sees.source, step.sees.revision, root, where)
            digests |= {each: seen.digest(each) for each in (classifier.CLASSIFIER, classifier.PREPROCESSOR)}
            digests |= {"decoder": checkpoint.digest("vae")}
        return Teachers(found, seen, {f"teacher {each}": digest for each, digest in digests.items()})

    def plays(self, part_name: str, name: str) -> Mapping[str, Any] | None:
        """Options of the teacher's trajectories, where a pass learns from such."""
        step: Any = self.of[part_name][name]
        return step.played if step.plays else None

    def place(self, part_name: str, name: str) -> str:
        """Where a pass stands in the recipe, for messages."""
        index = next(i for i, each in enumerate(self.family.recipe.components[part_name].passes) if name in each)
        return f"components.{part_name}.passes.{index}.{name}"
