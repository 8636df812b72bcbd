"""What the run time plays instead of code: tokenizers, samplers as tables, and the process that adaptive samplers solve."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.bundle import Tokenizer
from engines.errors import UnsupportedError
from engines.samplers.table import Table
from exporter.recipe.sampling import GuidanceOptions, SamplerOptions
from exporter.stages.stage import NamedFile, Results, Stage

if TYPE_CHECKING:
    from exporter.families import Family

_PROCESS = "process.json"
#: Tables that a sampler has beside the one from noise: which, how their stage is called, and the ending of their file's name.
_FURTHER = {"image": " from an image", "handover": " between two steps"}
#: What says at which times a sampler evaluates, and how much of the guidance counts there.
_GRIDS = SamplerOptions, GuidanceOptions


class TokenizerFiles(NamedFile):
    """One tokenizer: the `tokenizers` library's JSON, and what the manifest says of it."""

    suffix = ".json"

    @property
    def entry(self) -> Tokenizer:
        """For the manifest; its `file` has yet to be named."""
        return Tokenizer.model_validate_json(self._entry.read_text(encoding="utf-8"))

    @property
    def _entry(self) -> Path:
        return self.folder / f"{self.name}-entry.json"

    def write(self, entry: Tokenizer, text: str) -> None:
        """Keep both."""
        self.file.write_text(text, encoding="utf-8")
        self._entry.write_text(entry.model_dump_json(), encoding="utf-8")


class SamplerFile(NamedFile):
    """A sampler at one number of steps: its table from noise, or those from an image, or between two steps."""

    @property
    def table(self) -> Table:
        """The table itself, of a sampler."""
        return Table.load(self.file)

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width in pixels that the times depend on; None where they depend on none."""
        provenance = json.loads(self.file.read_text(encoding="utf-8"))["provenance"]
        return provenance["height"], provenance["width"]


@dataclass(frozen=True)
class ProcessFile:
    """The noise process that adaptive samplers solve; only a variance-preserving scheduler has it."""

    folder: Path

    @property
    def file(self) -> Path | None:
        """None where there is no such process."""
        file = self.folder / _PROCESS
        return file if file.exists() else None


class Tables:
    """Their stages.

    Attributes:
        tokenizers: by name.
        samplers: by number of steps, at the recipe's typical size.
        sized: the same at its other sizes, by steps, height and width, where the times depend on the size.
        further: the same of tables beside the one from noise, by what they are, then as in `samplers` and in `sized`: `image`,
            where the bundle has an image encoder, and `handover`, where the recipe asks for it.
        process: of the scheduler.
        stages: all of them.

    """

    def __init__(self, family: Family) -> None:
        recipe, checkpoint = family.recipe, family.checkpoint
        model, prompts = (type(family), type(checkpoint)), recipe.model_dump(mode="json", include={"prompts"})
        self.tokenizers: Mapping[str, Stage[TokenizerFiles]] = {
            name: Stage.keyed(
                "tokenize", name, partial(_tokenize, family=family, name=name), partial(TokenizerFiles, name=name),
                options=prompts, inputs={name: family.digest(name)}, makers=(*model, TokenizerFiles),
            )
            for name in family.tokenizer_names
        }  # fmt: skip
        self.samplers, self.sized = dict[int, Stage[SamplerFile]](), dict[tuple[int, int, int], Stage[SamplerFile]]()
        asked = {"image": edits(family), "handover": recipe.sampler.handover}
        self.further: Mapping[str, dict[int | tuple[int, int, int], Stage[SamplerFile]]] = {
            kind: {} for kind, wanted in asked.items() if wanted
        }
        schedule = {"scheduler": checkpoint.digest("scheduler")}
        typical, *others = _sizes(family)
        for steps in recipe.sampler.steps:
            options = recipe.sampler.model_dump(mode="json", exclude={"steps", "guidance", "force", "handover"})
            options |= {"steps": steps}
            options |= {"shares": recipe.sampler.guidance.shares(steps)} if recipe.sampler.guidance.shares(steps) else {}
            options |= {"size": [*typical], "edits": edits(family), "driving": asdict(family.driving)}
            options |= {"spread": True} if edits(family) and family.partial_step == "spread" else {}
            of = partial(_sampled, family, steps, options=options, schedule=schedule)
            self.samplers[steps] = of(typical)
            self.sized |= {(steps, *size): of(size) for size in others}
            for kind, found in self.further.items():
                found |= {steps: of(typical, kind), **{(steps, *size): of(size, kind) for size in others}}
        stages: list[Stage[Any]] = [*self.tokenizers.values(), *self.samplers.values()]
        stages += [*self.sized.values(), *(stage for found in self.further.values() for stage in found.values())]
        options = recipe.sampler.model_dump(mode="json", include={"scheduler", "config"})
        options |= {"levels": True} if family.driving.levels else {}
        options |= {"unit": family.driving.unit} if family.driving.unit != 1 else {}
        self.process = Stage.keyed(
            "process", "scheduler", partial(_process, family=family), ProcessFile, options=options, inputs=schedule
        )
        self.stages = (*stages, self.process)


def edits(family: Family) -> bool:
    """Whether the bundle can start from an image: the recipe names its encoder."""
    return "encoder" in family.roles.values()


def _sizes(family: Family) -> list[tuple[int, int]]:
    """Heights and widths that have tables of their own, the recipe's typical one first."""
    shapes = family.recipe.shapes
    typical, every = (shapes.height[1], shapes.width[1]), itertools.product(shapes.height, shapes.width)
    return [*dict.fromkeys([typical, *every])] if family.sized else [typical]


def _sampled(
    family: Family,
    steps: int,
    size: tuple[int, int],
    kind: str = "",
    *,
    options: Mapping[str, Any],
    schedule: Mapping[str, str],
) -> Stage[SamplerFile]:
    """The stage of one number of steps at a size: of the table from noise, or of a further `kind`."""
    times, sized = dict(family.times(steps, *size)), f" at {size[0]}x{size[1]}" if [*size] != options["size"] else ""
    making = partial(_compile_further, kind=kind, spread=bool(options.get("spread"))) if kind else _compile
    return Stage.keyed(
        "compile", f"{steps} steps{sized}{_FURTHER.get(kind, '')}",
        partial(making, family=family, steps=steps, size=size, times=times),
        partial(SamplerFile, name=f"{steps}{kind and f'-{kind}'}.json"),
        options={**options, "size": [*size], "times": times}, inputs=schedule, makers=_GRIDS,
    )  # fmt: skip


def compiled(family: Family, steps: int) -> Table:
    """Compile the recipe's sampler at a number of steps, for its typical size.

    Raises:
        RecipeError, UnsupportedError: there is no such scheduler, or none such as the recipe wants it.

    """
    size = family.recipe.shapes.height[1], family.recipe.shapes.width[1]
    return _compiled(family, steps, size, family.times(steps, *size))


def _compiled(family: Family, steps: int, size: tuple[int, int], times: Mapping[str, Any]) -> Table:
    from exporter.schedulers.compile_sampler import compile_sampler, configure  # noqa: PLC0415 - torch
    from exporter.schedulers.loop import refuse_given  # noqa: PLC0415
    from exporter.schedulers.step_plan import planned  # noqa: PLC0415

    name, arguments = _sampler(family, steps, size, times)
    if edits(family):
        refuse_given(configure(name, steps=steps, **arguments).make())
    return planned(compile_sampler(name, steps=steps, **arguments), family.recipe.sampler)


def _sampler(family: Family, steps: int, size: tuple[int, int], times: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name of the scheduler, and the arguments of `configure` beside the number of steps."""
    from exporter.schedulers.compile_sampler import scheduler_named  # noqa: PLC0415 - torch
    from exporter.schedulers.loop import beyond_its_own  # noqa: PLC0415

    sampler, own = family.recipe.sampler, family.checkpoint.configs["scheduler"]
    options = {"config": sampler.config, "own": own, "step": sampler.step, "driving": family.driving}
    grid = {"timesteps": sampler.times_over(steps), "sigmas": sampler.sigmas}
    if any(grid.values()):  # the recipe's, and not the pipeline's
        times = {name: value for name, value in times.items() if name not in grid}
    name = sampler.scheduler or own["_class_name"]
    options |= grid | beyond_its_own(scheduler_named(name), steps, times)
    return name, {**options, "height": size[0], "width": size[1]}


def _tokenize(folder: Path, _: Results, family: Family, name: str) -> None:
    TokenizerFiles(folder, name).write(*family.tokenizers()[name])


def _compile(folder: Path, _: Results, family: Family, steps: int, size: tuple[int, int], times: Mapping[str, Any]) -> None:
    _compiled(family, steps, size, times).dump(folder / f"{steps}.json")


def _compile_further(
    folder: Path,
    _: Results,
    family: Family,
    steps: int,
    size: tuple[int, int],
    times: Mapping[str, Any],
    *,
    kind: str,
    spread: bool,
) -> None:
    from exporter.schedulers.compile_sampler import configure  # noqa: PLC0415 - torch
    from exporter.schedulers.step_plan import planned_handovers, planned_starts  # noqa: PLC0415

    name, arguments = _sampler(family, steps, size, times)
    configured, options = configure(name, steps=steps, **arguments), family.recipe.sampler
    if kind == "handover":
        made: Any = planned_handovers(configured.handovers(), options)
    else:
        made = planned_starts(configured.starts(spread=spread), options)
    made.dump(folder / f"{steps}-{kind}.json")


def _process(folder: Path, _: Results, family: Family) -> None:
    from exporter.schedulers.noise_schedule import compile_process  # noqa: PLC0415 - torch

    sampler, own = family.recipe.sampler, family.checkpoint.configs["scheduler"]
    if family.driving.levels:
        told = "steps are computed from the noise's level, and solvers that choose their own tell times.\n"
        (folder / "absent.txt").write_text(told, encoding="utf-8")
        return
    if family.driving.unit != 1:
        told = f"{family.driving.pipeline} starts from {family.driving.unit:g} times the noise that a solver takes for its own.\n"
        (folder / "absent.txt").write_text(told, encoding="utf-8")
        return
    try:
        process = compile_process(sampler.scheduler or own["_class_name"], sampler.config, own)
    except UnsupportedError as error:
        (folder / "absent.txt").write_text(f"{error}\n", encoding="utf-8")
        return
    process.dump(folder / _PROCESS)
