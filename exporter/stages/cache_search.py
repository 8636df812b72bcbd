"""Step caching that a recipe leaves to a search: found on the source as the passes leave it, and written as a plain schedule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import RecipeError
from exporter.caching import schedules
from exporter.recipe.sampling import CacheOptions, GuidanceOptions, SamplerOptions
from exporter.stages.networks import MadeNetwork, family_of
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.recipe.schema import Recipe
    from exporter.stages.passes import Passes

_FILE = "schedule.json"


@dataclass(frozen=True)
class FoundSchedule:
    """What a search found: which steps run whole, at which depth the others, and what it saw of the images."""

    folder: Path

    @property
    def plain(self) -> str:
        """The schedule as a recipe has it, `{whole: [1, 4], depth: 0}`."""
        told = self._told
        return f"{{whole: {told['whole']}, depth: {told['depth']}}}"

    @property
    def summary(self) -> str:
        """What it costs and how close its images are."""
        told = self._told
        images = f"{len(told['psnr'])} images" if len(told["psnr"]) > 1 else "the image"
        near = f"{images} at least {min(told['psnr']):.1f} dB from the uncached"
        return f"{told['share']:.3f} of the denoiser's multiply-adds, {near}"

    @property
    def _told(self) -> Mapping[str, Any]:
        return json.loads((self.folder / _FILE).read_text(encoding="utf-8"))

    def write(self, told: Mapping[str, Any]) -> None:
        """Keep it here."""
        (self.folder / _FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def supposed(recipe: Recipe) -> Recipe:
    """The recipe with some schedule in the place of one that is to be searched, so that what does not hang on it is planned."""
    if not (recipe.sampler.cache and recipe.sampler.cache.searches):
        return recipe
    sampler = recipe.sampler.model_copy(update={"cache": CacheOptions(every=2)})
    return recipe.model_copy(update={"sampler": sampler})


def refuse(family: Family, passes: Passes) -> None:
    """Raise RecipeError for networks of which what is searched would change what they are, and of which nothing is searched."""
    if family.inputs:
        told = (
            f"are searched on prompts alone, and this model takes {', '.join(family.inputs)}; write a schedule, such as every: 3"
        )
        raise RecipeError([f"sampler.cache: floor and budget {told}"])
    if problems := [
        f"components.{part}.passes: {name} looks at what is recorded with the cache, and a search of the cache looks at what it "
        "makes; write sampler.cache as a plain schedule, such as every: 3"
        for part in family.roles
        for name, step in passes.of.get(part, {}).items()
        if step.recorded
    ]:
        raise RecipeError(problems)


def about(asked: CacheOptions, family: Family) -> str:
    """What a search looks for, and on what; a note for whoever plans."""
    (steps,), count = family.recipe.sampler.steps, len(family.recipe.checks.prompts)
    depths = " and ".join(map(str, schedules.tried(family.cache_depths)))
    where = f"on {steps} steps of {count} prompt{'s' * (count != 1)}, at depth {depths}"
    return f"sampler.cache: {_wish(asked)} is searched first, {where}; the stages after it are planned of what it finds"


def found(asked: CacheOptions, schedule: FoundSchedule) -> str:
    """What a search found; a note that goes into the bundle."""
    return f"sampler.cache: {_wish(asked)} was searched, and is cache: {schedule.plain}: {schedule.summary}"


def _wish(asked: CacheOptions) -> str:
    return f"floor {asked.floor:g} dB" if asked.floor is not None else f"budget {asked.budget:g}"


def searched(
    family: Family, asked: CacheOptions, depths: tuple[int, ...], networks: Mapping[str, Stage[MadeNetwork]]
) -> Stage[FoundSchedule]:
    """Search the schedule of a recipe.

    Args:
        family: of the recipe, with some schedule.
        asked: a floor or a budget.
        depths: at which the denoiser can be taken apart.
        networks: that passes made, by part.

    """
    recipe = family.recipe
    options = recipe.model_dump(mode="json", include={"shapes", "prompts"})
    options["sampler"] = recipe.sampler.model_dump(mode="json", exclude={"force", "cache"})
    options["checks"] = recipe.checks.model_dump(mode="json", include={"prompts", "negative_prompt", "seed"})
    options |= {"cache": asked.model_dump(mode="json"), "depths": list(depths), "tile": str(recipe.component("vae_decoder").tile)}
    inputs = {name: family.digest(name) for name in family.roles} | {"scheduler": family.checkpoint.digest("scheduler")}
    makers = type(family), type(family.checkpoint), SamplerOptions, GuidanceOptions, CacheOptions
    make = partial(_search, family=family, asked=asked, networks=networks)
    return Stage.keyed(
        "search", "step caching", make, FoundSchedule, options=options, inputs={**inputs, **networks}, makers=makers
    )


def _search(
    folder: Path, results: Results, family: Family, asked: CacheOptions, networks: Mapping[str, Stage[MadeNetwork]]
) -> None:
    from exporter.caching.search import search  # noqa: PLC0415 - torch
    from exporter.stages import tables  # noqa: PLC0415 - of the same room, with what compiles

    (steps,) = family.recipe.sampler.steps
    made = family_of(family, {part: results[stage] for part, stage in networks.items()})
    schedule = search(made, family.recipe, asked, tables.compiled(family, steps))
    FoundSchedule(folder).write(asdict(schedule))
