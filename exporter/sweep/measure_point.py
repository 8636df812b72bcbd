"""A worker's second task: draw with a point's bundle, score the pictures, time it beside the base. In and out go plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from engines.bundle import Bundle
from engines.guidance import PERTURBED, USUAL, Guidance
from engines.images.png import write
from engines.pipeline import Pipeline
from engines.sampler_ops import Eval
from engines.samplers.table import Table
from exporter import machine, scores
from exporter.bench import drawing, energy
from exporter.bench import run as bench
from exporter.sweep.result import Measured
from exporter.sweep.spec import Measures, RunOptions

#: Sides up to which a shown picture is kept whole, in pixels.
_SHOWN_SIDE = 512


@dataclass(frozen=True)
class MeasureTask:
    """What to draw with which bundle, and against which.

    Attributes:
        bundle: of the point.
        base: of the base.
        run: how the point's bundle is run.
        multiply_adds: of one call of each part; empty where they are not known.
        measures: what is measured.
        prompts: what is drawn.
        root: folder from which files of scores count.
        pictures: folder for those that are shown, in `reference` for all of the base, and in `seen` for what scores see in those
            that others are held against.
        name: what the point's files are called.
        is_base: whether the point is the base, whose pictures are the reference.

    """

    bundle: Path
    base: Path
    run: RunOptions
    multiply_adds: Mapping[str, int]
    measures: Measures
    prompts: tuple[str, ...]
    root: Path
    pictures: Path
    name: str
    is_base: bool

    @property
    def references(self) -> list[Path]:
        """Files of the base's pictures, without loss."""
        return [self.pictures / "reference" / f"{number}.png" for number in range(len(self.prompts))]


def measure_point(task: MeasureTask) -> Measured:
    """Measure a point. Nothing else may run on the machine meanwhile.

    Raises:
        UnsupportedError: the bundle cannot be run like that, or a score cannot be had.

    """
    asked = [named for each in task.measures.scores for named in each.items()]
    judges = {scores.name_of(name): scores.load(name, options, task.root, task.pictures / "seen") for name, options in asked}
    with Pipeline.open(task.bundle) as pipeline:
        before = energy.read()
        pictures = _drawn(pipeline, task)
        used = energy.joules(before, energy.read())
        calls = _calls(pipeline.bundle, task.run, pictures)
        work = _multiply_adds(pipeline.bundle, task.multiply_adds, calls)
    if task.is_base:
        task.references[0].parent.mkdir(parents=True, exist_ok=True)
        for picture, file in zip(pictures, task.references, strict=True):
            write(picture, file)
    own, base = _raced(task)
    scored = _scored(judges, pictures, task)
    return Measured(
        seconds=own,
        base_seconds=base,
        memory=_peak(task),
        evaluations=sum(number for number, _ in calls.values()),
        multiply_adds=work,
        scores=scored,
        pictures=_shown(pictures, task),
        notes=tuple(note for name in scored for note in scores.notes(judges[name], len(pictures))),
        energy=None if used is None else used / len(pictures),
    )


def _wishes(run: RunOptions) -> dict[str, Any]:
    """Arguments of `Pipeline.generate`."""
    return {name: value for name, value in run if value is not None}


def _drawn(pipeline: Pipeline, task: MeasureTask) -> list[Image.Image]:
    calls, wishes = drawing.groups(task.prompts, task.measures.seed), _wishes(task.run)
    return [picture for texts, seeds in calls for picture in pipeline.generate(texts, seed=seeds, **wishes)]


def _calls(bundle: Bundle, run: RunOptions, pictures: Sequence[Image.Image]) -> dict[str, tuple[float, float]]:
    """Role → how often it is called for a picture, and to how many calls with all branches that comes."""
    about = bundle.manifest
    steps, height, width = (getattr(run, name) or getattr(about.defaults, name) for name in ("steps", "height", "width"))
    entry, share = about.compiled(steps, height, width), _branches(about.guidance, run)
    if run.sampler or run.parallel or entry.kind != "table":  # what chooses, and what speculates, calls as often as it did
        told = float(np.mean([float(picture.info["evaluations"]) for picture in pictures]))
        return {"denoiser": (told, told * share(1.0))}
    table = Table.load(bundle.path(entry.file))
    found: dict[str, tuple[float, float]] = {}
    for op in table.ops:
        if isinstance(op, Eval):
            role = "shallow" if op.shallow else "denoiser"
            number, whole = found.get(role, (0.0, 0.0))
            found[role] = number + 1, whole + share(1.0 if op.guided is None else op.guided)
    return found


def _branches(guidance: Guidance, run: RunOptions) -> Callable[[float], float]:
    """Of a share of the guidance: which share of the branches a call computes, where it may leave some out."""
    scales = guidance.fed({name: value for name in (USUAL, PERTURBED) if (value := getattr(run, name)) is not None})
    return lambda share: len(guidance.taken(guidance.at(scales, share))) / guidance.rows


def _multiply_adds(bundle: Bundle, each: Mapping[str, int], calls: Mapping[str, tuple[float, float]]) -> float | None:
    """Multiply-adds of a picture: text networks and decoder run once, an encoder not at all."""
    roles = {name: part.role for name, part in bundle.manifest.parts.items()}
    times = {"encoder": 0.0, "shallow": 0.0, **{role: whole for role, (_, whole) in calls.items()}}
    return sum(size * times.get(roles[name], 1.0) for name, size in each.items()) if each else None


def _scored(
    judges: Mapping[str, scores.Score], pictures: Sequence[Image.Image], task: MeasureTask
) -> dict[str, tuple[float, ...]]:
    """Every picture's scores; without those that compare of the base, and where the base's pictures have another size."""
    images, others = drawing.pixels(pictures), drawing.pixels([Image.open(file) for file in task.references])
    comparable = images.shape == others.shape and not task.is_base
    found = {}
    for name, judge in judges.items():
        if comparable or not judge.compares:
            values = judge.of(images, task.prompts, others if judge.compares else None)
            found[name] = tuple(float(value) for value in values)
    return found


def _raced(task: MeasureTask) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds of the point's pictures, and of the base's in the same rounds."""
    asked = [("point", task.bundle, task.run), *([] if task.is_base else [("base", task.base, RunOptions())])]
    with TemporaryDirectory() as folder, ExitStack() as stack:
        field = [
            bench.contestant(name, stack.enter_context(Pipeline.open(path)), task.prompts[0], task.measures.seed, **_wishes(run))
            for name, path, run in asked
        ]
        timings, _ = bench.race(field, [1], task.measures.rounds, Path(folder))
    return tuple(timings[0].seconds), tuple(timings[-1].seconds)


def _peak(task: MeasureTask) -> int:
    """Peak memory of a fresh process that draws one picture, in bytes."""
    given = {f"--{name.replace('_', '-')}": str(value) for name, value in _wishes(task.run).items()}
    options = [word for pair in given.items() for word in pair]
    with TemporaryDirectory() as folder:
        command = ("-m", "engines", str(task.bundle), task.prompts[0], *options, "-o", str(Path(folder) / "picture.png"))
        return machine.cold(command).peak


def _shown(pictures: Sequence[Image.Image], task: MeasureTask) -> tuple[str, ...]:
    """Write the pictures that the report shows; their files' names."""
    names = []
    for number, picture in enumerate(pictures[: task.measures.shown]):
        small = picture.convert("RGB")
        small.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
        names.append(f"{task.name}-{number}.webp")
        small.save(task.pictures / names[-1], lossless=max(small.size) <= 128, quality=90)
    return tuple(names)
