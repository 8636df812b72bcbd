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
    """A sampler at one number of steps, or where it starts when it starts from an image: its table."""

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
        starts: the same for runs that start from an image; empty where the bundle has no image encoder.
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
        self.samplers, self.starts = dict[int, Stage[SamplerFile]](), dict[int, Stage[SamplerFile]]()
        schedule = {"scheduler": checkpoint.digest("scheduler")}
        self.sized = dict[tuple[int, int, int], Stage[SamplerFile]]()
        self.sized_starts = dict[tuple[int, int, int], Stage[SamplerFile]]()
        typical, *others = _sizes(family)
        stages: list[Stage[Any]] = [*self.tokenizers.values()]
        for steps in recipe.sampler.steps:
            options = recipe.sampler.model_dump(mode="json", exclude={"steps", "guidance", "force"}) | {"steps": steps}
            options |= {"shares": recipe.sampler.guidance.shares(steps)} if recipe.sampler.guidance.shares(steps) else {}
            options |= {"size": [*typical], "edits": edits(family), "driving": asdict(family.driving)}
            options |= {"times": dict(family.times(steps, *typical))}
            spread = edits(family) and family.partial_step == "spread"
            options |= {"spread": True} if spread else {}
            given = {"family": family, "steps": steps, "size": typical, "times": options["times"]}
            self.samplers[steps] = Stage.keyed(
                "compile", f"{steps} steps", partial(_compile, **given), partial(SamplerFile, name=f"{steps}.json"),
                options=options, inputs=schedule, makers=_GRIDS,
            )  # fmt: skip
            stages.append(self.samplers[steps])
            if edits(family):
                self.starts[steps] = Stage.keyed(
                    "compile", f"{steps} steps from an image", partial(_compile_starts, **given, spread=spread),
                    partial(SamplerFile, name=f"{steps}-image.json"), options=options, inputs=schedule, makers=_GRIDS,
                )  # fmt: skip
                stages.append(self.starts[steps])
            self.sized |= {(steps, *size): _sized(family, steps, size, options, schedule) for size in others}
            if edits(family):
                self.sized_starts |= {
                    (steps, *size): _sized(family, steps, size, options, schedule, starts=True) for size in others
                }
        stages += [*self.sized.values(), *self.sized_starts.values()]
        self.process = Stage.keyed(
            "process", "scheduler", partial(_process, family=family), ProcessFile,
            options=recipe.sampler.model_dump(mode="json", include={"scheduler", "config"}), inputs=schedule,
        )  # fmt: skip
        self.stages = (*stages, self.process)


def edits(family: Family) -> bool:
    """Whether the bundle can start from an image: the recipe names its encoder."""
    return "encoder" in family.roles.values()


def _sizes(family: Family) -> list[tuple[int, int]]:
    """Heights and widths that have tables of their own, the recipe's typical one first."""
    shapes = family.recipe.shapes
    typical, every = (shapes.height[1], shapes.width[1]), itertools.product(shapes.height, shapes.width)
    return [*dict.fromkeys([typical, *every])] if family.sized else [typical]


def _sized(
    family: Family,
    steps: int,
    size: tuple[int, int],
    options: Mapping[str, Any],
    schedule: Mapping[str, str],
    *,
    starts: bool = False,
) -> Stage[SamplerFile]:
    times = dict(family.times(steps, *size))
    spreading = partial(_compile_starts, spread=bool(options.get("spread")))
    compile_, words, suffix = (spreading, " from an image", "-image") if starts else (_compile, "", "")
    return Stage.keyed(
        "compile", f"{steps} steps at {size[0]}x{size[1]}{words}",
        partial(compile_, family=family, steps=steps, size=size, times=times),
        partial(SamplerFile, name=f"{steps}{suffix}.json"),
        options={**options, "size": [*size], "times": times}, inputs=schedule,
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
    sampler, own = family.recipe.sampler, family.checkpoint.configs["scheduler"]
    options = {"config": sampler.config, "own": own, "step": sampler.step, "driving": family.driving}
    grid = {"timesteps": sampler.times_over(steps), "sigmas": sampler.sigmas}
    if any(grid.values()):  # the recipe's, and not the pipeline's
        times = {name: value for name, value in times.items() if name not in grid}
    options |= grid | dict(times)
    return sampler.scheduler or own["_class_name"], {**options, "height": size[0], "width": size[1]}


def _tokenize(folder: Path, _: Results, family: Family, name: str) -> None:
    TokenizerFiles(folder, name).write(*family.tokenizers()[name])


def _compile(folder: Path, _: Results, family: Family, steps: int, size: tuple[int, int], times: Mapping[str, Any]) -> None:
    _compiled(family, steps, size, times).dump(folder / f"{steps}.json")


def _compile_starts(
    folder: Path,
    _: Results,
    family: Family,
    steps: int,
    size: tuple[int, int],
    times: Mapping[str, Any],
    *,
    spread: bool,
) -> None:
    from exporter.schedulers.compile_sampler import configure  # noqa: PLC0415 - torch
    from exporter.schedulers.step_plan import planned_starts  # noqa: PLC0415

    name, arguments = _sampler(family, steps, size, times)
    starts = planned_starts(configure(name, steps=steps, **arguments).starts(spread=spread), family.recipe.sampler)
    starts.dump(folder / f"{steps}-image.json")


def _process(folder: Path, _: Results, family: Family) -> None:
    from exporter.schedulers.noise_schedule import compile_process  # noqa: PLC0415 - torch

    sampler, own = family.recipe.sampler, family.checkpoint.configs["scheduler"]
    try:
        process = compile_process(sampler.scheduler or own["_class_name"], sampler.config, own)
    except UnsupportedError as error:
        (folder / "absent.txt").write_text(f"{error}\n", encoding="utf-8")
        return
    process.dump(folder / _PROCESS)
