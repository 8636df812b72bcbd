"""What the source does, and the pipeline with the networks that passes made, recorded for all that is held to them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.recipe.schema import SamplerOptions
from exporter.reference.recording import RecordingFolder
from exporter.stages.networks import MadeNetwork, family_of
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.recipe.schema import Recipe


def source(family: Family, meant: Family) -> Stage[RecordingFolder] | None:
    """Record the source; None where the recipe skips the checks.

    Args:
        family: of the recipe.
        meant: the same with a sampler that reads the source's answers as they are meant, whatever a pass makes of them.

    """
    if family.recipe.checks.skip:
        return None
    options = _options(family) | {"config": dict(meant.recipe.sampler.config)}
    make = partial(_record, family=meant, recipe=family.recipe)
    return Stage.keyed(
        "record", "source", make, RecordingFolder, options=options, inputs=_networks(family), makers=_makers(family)
    )


def remade(family: Family, networks: Mapping[str, Stage[MadeNetwork]]) -> Stage[RecordingFolder]:
    """Record the pipeline with the networks that passes made, by part."""
    make = partial(_record_remade, family=family, networks=networks)
    inputs = {**_networks(family), **networks}
    return Stage.keyed("record", "passes", make, RecordingFolder, options=_options(family), inputs=inputs, makers=_makers(family))


def _options(family: Family) -> dict[str, Any]:
    recipe = family.recipe
    options = recipe.model_dump(mode="json", include={"sampler", "shapes", "prompts"}, exclude={"sampler": {"force"}})
    options |= {"call": dict(recipe.model.call)} if recipe.model.call else {}
    options |= {"pictures": dict(recipe.model.pictures)} if recipe.model.pictures else {}
    # Prompts of speed and quality are others.
    options["checks"] = recipe.checks.model_dump(mode="json", exclude={"limits", "faster_than", "quality"})
    return options | {"parts": sorted(family.roles), "tile": str(recipe.component("vae_decoder").tile)}


def _makers(family: Family) -> tuple[object, ...]:
    return type(family), type(family.checkpoint), RecordingFolder, SamplerOptions.asked


def _networks(family: Family) -> dict[str, str]:
    return {name: family.digest(name) for name in family.roles}


def _record(folder: Path, _: Results, family: Family, recipe: Recipe) -> None:
    from exporter.reference.record import record  # noqa: PLC0415 - torch

    RecordingFolder(folder).write(record(family, recipe))


def _record_remade(folder: Path, results: Results, family: Family, networks: Mapping[str, Stage[MadeNetwork]]) -> None:
    made = family_of(family, {part: results[stage] for part, stage in networks.items()})
    _record(folder, results, made, family.recipe)
