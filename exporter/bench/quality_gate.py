"""The recipe's wish for quality: pictures are drawn and scored after the check, and the interval decides."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from engines.bundle import Bundle
from engines.errors import ParityError, RecipeError
from engines.pipeline import Pipeline
from exporter import scores
from exporter.bench.diffusers import Baseline
from exporter.bench.drawing import groups, pixels
from exporter.bench.stopwatch import Stopwatch
from exporter.parity.intervals import bootstrap, interval
from exporter.stages import assemble, contents

if TYPE_CHECKING:
    from exporter.recipe.quality import QualityFloor
    from exporter.recipe.schema import Recipe
    from exporter.stages.plan import Plan
    from exporter.stages.stage import Results, Stage

_RESULT = "quality.json"


@dataclass(frozen=True)
class MissedFloor:
    """A floor that is surely missed.

    Attributes:
        score: what judges.
        floor: what is asked.
        texts: the prompts that were drawn.
        own: a number of every picture of the bundle.
        others: of the source's pictures, where a share of its score is asked.
        source: these pictures, uint8 (pictures, height, width, 3), where the score compares with them.

    """

    score: scores.Score
    floor: QualityFloor
    texts: Sequence[str]
    own: np.ndarray
    others: np.ndarray | None
    source: np.ndarray | None

    def numbers(self, images: np.ndarray) -> np.ndarray:
        """The score of each of other pictures of the same prompts, uint8 (pictures, height, width, 3)."""
        return np.asarray(self.score.of(images, self.texts, self.source), np.float64)


class QualityMissed(ParityError):  # noqa: N818 - the name says what happened
    """A bundle is of less quality than its recipe asks; of `missed` that is sure, and not too near to tell."""

    def __init__(self, text: str, missed: Sequence[MissedFloor]) -> None:
        super().__init__(text)
        self.missed = tuple(missed)


def refuse(recipe: Recipe) -> None:
    """Raise RecipeError where a score or its prompts cannot be had, before time is spent."""
    problems = []
    for name, floor in recipe.checks.quality.items():
        try:
            score = scores.load(name, floor.options, recipe.root)
            floor.texts(recipe.root)
        except RecipeError as error:
            problems += [f"checks.quality.{name}: {problem}" for problem in error.problems]
            continue
        if floor.share is not None and (score.compares or not score.higher_is_better):
            told = "compares with the source" if score.compares else "is better when it is lower"
            problems.append(f"checks.quality.{name}: it {told}, so there is no share of it; write a number")
    if problems:
        raise RecipeError(problems)


def stage(plan: Plan, path: Path) -> Stage[list[str]]:
    """The gate of the bundle at `path` as a stage: one that was passed is not drawn again for the same bundle and floors."""
    recipe = plan.recipe
    asked = recipe.checks.quality
    files = {name: found for name, floor in asked.items() if (found := scores.digest(name, floor.options, recipe.root))}
    options: dict[str, Any] = {name: floor.model_dump(mode="json") for name, floor in asked.items()}
    options |= {"prompts": {name: floor.texts(recipe.root) for name, floor in asked.items()}, "files": files}
    make, makers = partial(_held, path=path, recipe=recipe), (assemble.lay_out, contents.opened, type(plan.family))
    return plan.last_stage("quality", make, _notes, options=options, makers=makers)


def _held(folder: Path, _: Results, path: Path, recipe: Recipe) -> None:
    (folder / _RESULT).write_text(json.dumps(hold(path, recipe.checks.quality, recipe.root)), encoding="utf-8")


def _notes(folder: Path) -> list[str]:
    """What was scored, a sentence each."""
    return json.loads((folder / _RESULT).read_text(encoding="utf-8"))


def hold(path: Path, asked: Mapping[str, QualityFloor], root: Path) -> list[str]:
    """Score the pictures of the bundle at `path`; a sentence for each floor that it reaches.

    Raises:
        QualityMissed: it misses one, or has too few prompts to tell; says how many more would.

    """
    told, untold, missed = list[str](), list[str](), list[MissedFloor]()
    for name, floor in asked.items():
        score, texts = scores.load(name, floor.options, root), floor.texts(root)
        images, source = _drawn(path, texts, floor.seed, root, source=floor.share is not None or score.compares)
        compared = source if score.compares else None
        own = np.asarray(score.of(images, texts, compared), np.float64)
        others = None if floor.share is None or source is None else np.asarray(score.of(source, texts, None), np.float64)
        passed, sentence = decide(own, others, floor, score)
        (told if passed else untold).append(". ".join([sentence.rstrip("."), *scores.notes(score, len(own))]))
        if passed is False:
            missed.append(MissedFloor(score, floor, texts, own, others, compared))
    if untold:
        raise QualityMissed("\n".join(untold), missed)
    return told


def decide(own: np.ndarray, source: np.ndarray | None, floor: QualityFloor, score: scores.Score) -> tuple[bool | None, str]:
    """Whether a floor is surely reached, surely missed (False), or nobody can tell (None), and the sentence that says so.

    Args:
        own: a number of every picture.
        source: those of the source's pictures of the same prompts and noise; None where the floor is a number.
        floor: what is asked.
        score: which way is better.

    """
    share = floor.share
    # How far above the floor each picture is: a share is one of the source's mean, so its margin is that of the pair.
    margins = own - float(floor.at_least) if source is None or share is None else own - share * source
    margins = margins if score.higher_is_better else -margins
    if source is None and np.isin(own, (0.0, 1.0)).all():  # a share, whose interval has a width at its ends, too
        low, high = (end - float(floor.at_least) for end in interval(own.tolist()))
    else:
        low, high = bootstrap(margins)
    bound = f"{'at least' if score.higher_is_better else 'at most'} {floor.at_least}"
    beside = "" if source is None else f", the source {source.mean():.4g}"
    figures = f"{score.label} {own.mean():.4g}{beside}, over {len(own)} prompts; {bound} is asked"
    if low >= 0:
        return True, f"quality: {figures}"
    if high < 0:
        return False, f"too low a quality: {figures}."
    return None, f"too few prompts to tell: {figures}; {_more(margins, high - low)}."


def _more(margins: np.ndarray, width: float) -> str:
    """How many more prompts would decide, if the mean stays where it is: an interval narrows with the root of their number."""
    mean = abs(float(margins.mean()))
    needed = math.inf if mean == 0 else len(margins) * (width / 2 / mean) ** 2
    if needed > 1000 * len(margins):
        return "it lies so near that no number of prompts would decide; ask for less"
    return f"{max(1, math.ceil(needed - len(margins)))} more would, if it stays so"


def pictures(path: Path, texts: Sequence[str], seed: int) -> np.ndarray:
    """A bundle's pictures, at its own defaults: uint8 (pictures, height, width, 3)."""
    with Pipeline.open(path) as pipeline:
        return pixels([image for some, seeds in groups(texts, seed) for image in pipeline.generate(some, seed=seeds)])


def _drawn(path: Path, texts: Sequence[str], seed: int, root: Path, *, source: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The bundle's pictures, and the source's of the same noise where they are asked for: uint8 (pictures, height, width, 3)."""
    bundle = Bundle.open(path)
    defaults, scale = bundle.manifest.defaults, bundle.manifest.guidance.scale
    size = {"height": defaults.height, "width": defaults.width}
    baseline = Baseline(bundle, "diffusers", Stopwatch(), root) if source else None
    own, others = list[Image.Image](), list[Image.Image]()
    with Pipeline.open(path) as pipeline:
        for some, seeds in groups(texts, seed):
            own += pipeline.generate(some, seed=seeds)
            if baseline:
                noise = pipeline.seeded(seeds, len(some), defaults.height, defaults.width)
                others += baseline.draw(some, noise, steps=defaults.steps, guidance_scale=scale, **size)
    return pixels(own), pixels(others) if baseline else None
