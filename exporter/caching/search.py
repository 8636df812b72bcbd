"""Which steps run the whole denoiser, and how deep the others go: searched on what the source does without caching."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engines.errors import RecipeError
from engines.guidance import PERTURBED, USUAL
from exporter.caching import schedules
from exporter.parity.metrics import psnr
from exporter.recipe.sampling import CacheOptions
from exporter.reference.cost import count
from exporter.reference.record import noises, opened, play
from exporter.reference.recording import Run, Setting

if TYPE_CHECKING:
    from engines.samplers.table import Table
    from exporter.families import Family, Reference, Saw
    from exporter.recipe.schema import Recipe

#: How many steps back what a whole call left may still be used. Beyond it little is saved: at 10 SDXL's ceiling is 8.8 times.
REACH = 10


@dataclass(frozen=True)
class CacheSchedule:
    """A plain schedule of step caching, and what it was seen to do.

    Attributes:
        whole: the steps at which the denoiser runs whole, counted from 1.
        depth: of the others.
        share: of the denoiser's multiply-adds without caching.
        psnr: of each prompt's image to the uncached one, dB.

    """

    whole: tuple[int, ...]
    depth: int
    share: float
    psnr: tuple[float, ...] = ()

    @property
    def options(self) -> CacheOptions:
        """What a recipe asks of it."""
        return CacheOptions(whole=self.whole, depth=self.depth)


def search(family: Family, recipe: Recipe, asked: CacheOptions, table: Table) -> CacheSchedule:
    """Find the schedule with the fewest multiply-adds and no image below a floor, or the closest images within a budget.

    Every prompt of the checks is drawn once without caching; at each step the outermost layers answer too, on what the steps
    before left, at every depth that the denoiser has. How far they are off, times what an answer counts in the final latent,
    adds up over the steps that share what one left (their errors have one direction), and the sizes of these sums to the error
    of a schedule, of which the best is found for each cost. What the network makes of an error later is not in it, so those
    that may do are played to the image, and beside them schedules that spread their whole steps evenly.

    Args:
        family: with the networks that are to be cached.
        recipe: whose steps, prompts, seed and guidance are played; its own cache is not.
        asked: a floor or a budget.
        table: the recipe's sampler.

    Raises:
        RecipeError: no schedule is close enough, or cheap enough; says what can be had.

    """
    trials = _Trials(family, recipe, table)
    if asked.budget is not None:
        return _within(asked.budget, trials)
    return _above(asked.floor or 0.0, trials)


def beside(family: Family, recipe: Recipe, table: Table, counts: Sequence[int]) -> list[tuple[CacheSchedule, CacheSchedule]]:
    """For each number of whole steps: the schedule that spreads them, and the one of the least sums, both played to the image.

    Of the first depth; arguments as of `search`.

    Raises:
        RecipeError: of one kind or the other no schedule has so many whole steps.

    """
    trials = _Trials(family, recipe, table)
    chosen, spread = trials.candidates[:2]
    found = []
    for wanted in counts:
        pair = [each for kind in (spread, chosen) for each in kind if len(each.whole) == wanted]
        if len(pair) < 2:
            had = sorted({len(each.whole) for each in spread} & {len(each.whole) for each in chosen})
            told = ", ".join(map(str, had))
            raise RecipeError(f"sampler.cache: no schedules of both kinds have {wanted} whole steps; write one of {told}")
        found.append((trials.played(pair[0]), trials.played(pair[-1])))
    return found


def _within(budget: float, trials: _Trials) -> CacheSchedule:
    fewest = trials.fewest
    if budget < fewest:
        raise RecipeError(
            f"sampler.cache.budget: {budget:g} of the multiply-adds is less than caching comes to here, where nothing is kept "
            f"for more than {REACH} steps; write {np.ceil(fewest * 100) / 100:.2f} or more"
        )
    affordable = [[each for each in found if each.share <= budget] for found in trials.candidates]
    played = [trials.played(found[-1]) for found in affordable if found]
    return max(played, key=lambda each: fmean(each.psnr))


def _above(floor: float, trials: _Trials) -> CacheSchedule:
    cheapest: CacheSchedule | None = None
    closest = 0.0
    for each in trials.candidates:
        candidates = [schedule for schedule in each if cheapest is None or schedule.share < cheapest.share]
        low, high = 0, len(candidates)
        while low < high:
            middle = (low + high) // 2
            played = trials.played(candidates[middle])
            closest = max(closest, min(played.psnr))
            if min(played.psnr) < floor:
                low = middle + 1
            else:
                high, cheapest = middle, played
    if cheapest is None:
        raise RecipeError(
            f"sampler.cache.floor: {floor:g} dB is more than any schedule reaches that leaves something out; the closest is "
            f"{closest:.1f} dB from the uncached image. Write {max(np.floor(closest), 1):g} dB or less, or leave the cache out"
        )
    return cheapest


@dataclass(frozen=True)
class _Trial:
    """A prompt's image without caching, and a way to draw it with some."""

    image: np.ndarray
    cached: Callable[[CacheOptions], Run]


class _Trials:
    """What is known of the recipe's prompts without caching.

    Attributes:
        candidates: lists of schedules, each of one depth and kind, and by rising multiply-adds.

    """

    def __init__(self, family: Family, recipe: Recipe, table: Table) -> None:
        self._family, self._recipe = family, recipe
        self._weights = schedules.influence(table)
        (self._steps,) = recipe.sampler.steps
        if len(self._weights) != self._steps:
            raise RecipeError(
                f"sampler.cache: a search is of schedulers that call the network once a step, and this one calls it "
                f"{len(self._weights)} times in {self._steps} steps; take every: 3, or another scheduler"
            )
        self._depths = schedules.tried(family.cache_depths)
        self._shares = recipe.sampler.guidance.shares(self._steps) or (1.0,) * self._steps
        self._branches = [len(family.guidance.taken(self._steered(share))) for share in self._shares]

    def _steered(self, share: float) -> dict[str, np.ndarray]:
        """The scales of guidance where a share of it counts."""
        return self._family.guidance.at(self._family.guidance.fed(None), share)

    @property
    def fewest(self) -> float:
        """The smallest share of the multiply-adds that caching can come to."""
        return min(found[0].share for found in map(self._even, self._depths))

    @cached_property
    def candidates(self) -> list[list[CacheSchedule]]:
        found = []
        for depth, between in self._trials[1].items():
            made = schedules.best(between, self._branches).values()
            found += [[self._schedule(each, depth) for each in made], self._even(depth)]
        return found

    def _even(self, depth: int) -> list[CacheSchedule]:
        """Whole steps that are spread, and those that must be among them; no step reaches further back than `REACH`."""
        forced = {step for step in range(1, self._steps) if self._shares[step] > 0 and not self._shares[step - 1] > 0}
        found = (tuple(sorted({*each, *forced})) for each in schedules.even(self._steps))
        near = (each for each in found if all(end - start <= REACH for start, end in pairwise((*each, self._steps))))
        return sorted((self._schedule(each, depth) for each in near if len(each) < self._steps), key=lambda each: each.share)

    def _schedule(self, whole: Sequence[int], depth: int) -> CacheSchedule:
        return CacheSchedule(tuple(step + 1 for step in whole), depth, self._share(whole, depth))

    def played(self, schedule: CacheSchedule) -> CacheSchedule:
        """The schedule with what its images are."""
        images = [(trial.cached(schedule.options).image, trial.image) for trial in self._trials[0]]
        return replace(schedule, psnr=tuple(psnr(got, want, 1.0) for got, want in images))

    def _share(self, whole: Sequence[int], depth: int) -> float:
        own, total = self._costs[depth], sum(self._branches)
        full = sum(self._branches[step] for step in whole)
        return (full + (total - full) * own) / total

    @cached_property
    def _costs(self) -> Mapping[int, float]:
        """Depth → multiply-adds of the shallow denoiser, as a share of the whole one's."""
        found, whole = {}, 0
        for depth in self._depths:
            sampler = self._recipe.sampler.model_copy(update={"cache": CacheOptions(every=2, depth=depth)})
            family = self._family.replacing(recipe=self._recipe.model_copy(update={"sampler": sampler}))
            name = {role: name for name, role in family.roles.items()}
            sizes = count(family, [name["shallow"], *([] if whole else [name["denoiser"]])])
            whole = whole or sizes[name["denoiser"]].multiply_adds
            found[depth] = sizes[name["shallow"]].multiply_adds / whole
        return found

    @cached_property
    def _trials(self) -> tuple[list[_Trial], Mapping[int, np.ndarray]]:
        """A trial for each prompt; depth → error of the steps between j and i, shallow on what step j left, at [j, i]."""
        recipe, reference, depths = self._recipe, opened(self._family, self._recipe), self._depths
        between = {depth: self._possible() for depth in depths}
        trials = list[_Trial]()
        scale = recipe.sampler.guidance.scale if recipe.sampler.guidance.mode != "none" else None
        height, width = recipe.shapes.height[1], recipe.shapes.width[1]
        negative = recipe.checks.negative_prompt if recipe.sampler.guidance.mode == "classifier_free" else None
        for number, prompt in enumerate(recipe.checks.prompts):
            setting = Setting(prompt, (prompt,), negative, self._steps, height, width, scale)
            with torch.no_grad():
                conditioning = reference.encode(setting.prompts, setting.negative_prompt)
            one = partial(_played, self._family, reference, setting, conditioning, number)
            with reference.reusing(depths, REACH, self._adding(between)):
                trials.append(_Trial(one(None).image, one))
        return trials, between

    def _possible(self) -> np.ndarray:
        """No error where steps j to i can share what j left, else an infinite one, at [j, i]."""
        found = np.full((self._steps, self._steps + 1), np.inf)
        for start in range(self._steps):
            alone = not self._shares[start] > 0
            for end in range(start + 1, min(start + REACH + 1, self._steps) + 1):
                if alone and any(share > 0 for share in self._shares[start + 1 : end]):
                    break  # of one branch, nothing is left for two
                found[start, end] = 0.0
        return found

    def _adding(self, between: Mapping[int, np.ndarray]) -> Saw:
        """What adds the errors of one run to those between two whole steps."""
        sums: dict[tuple[int, int], np.ndarray] = {}

        def add(depth: int, origin: int, step: int, error: np.ndarray) -> None:
            mixed = self._weights[step] * self._mixed(error, self._steered(self._shares[step]))
            sums[depth, origin] = sums.get((depth, origin), 0.0) + mixed
            between[depth][origin, step + 1] += float(np.linalg.norm(sums[depth, origin]))

        return add

    def _mixed(self, error: np.ndarray, scales: Mapping[str, np.ndarray]) -> np.ndarray:
        """What guidance makes of the errors of a call's branches: the negative one, the prompt's own, what is perturbed."""
        free = USUAL in scales and self._family.guidance.branches > 1
        perturbed = PERTURBED in scales and bool(self._family.guidance.rows > self._family.guidance.branches)
        if len(error) == 1:
            return error[0]
        own = error[len(error) - 1 - perturbed]
        found = own + (float(scales[USUAL]) - 1) * (own - error[0]) if free else own
        return found + float(scales[PERTURBED]) * (own - error[-1]) if perturbed else found


def _played(
    family: Family,
    reference: Reference,
    setting: Setting,
    conditioning: Mapping[str, np.ndarray],
    number: int,
    cache: Any,  # noqa: ANN401
) -> Run:
    """Draw one image of the source with some caching, or with none, always on the same noise."""
    with torch.no_grad():
        return play(family, reference, setting, conditioning, {}, noises(family.recipe, number), None, cache=cache)
