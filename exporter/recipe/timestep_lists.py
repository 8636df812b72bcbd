"""Lists of model times: published ones by name, each with where it was published, and a power law of our own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from engines.strict import Frozen

Name = Literal["ays-sd-10", "ays-sdxl-10", "dmd2-sdxl-1", "dmd2-sdxl-4", "hyper-sdxl-1"]


@dataclass(frozen=True)
class TimestepList:
    """Model times of a training schedule of 1000, falling, and their source; `model` is what they were found for."""

    times: tuple[int, ...]
    model: str
    source: str


_AYS = "Align Your Steps, arXiv 2404.14507, quickstart guide; diffusers' AysSchedules"
_DMD2 = "DMD2, arXiv 2405.14867, README of tianweiy/DMD2"
_HYPER = "Hyper-SD, arXiv 2404.13686, README of ByteDance/Hyper-SD"
_LISTS: dict[Name, TimestepList] = {
    "ays-sd-10": TimestepList((999, 850, 736, 645, 545, 455, 343, 233, 124, 24), "Stable Diffusion 1.5", _AYS),
    "ays-sdxl-10": TimestepList((999, 845, 730, 587, 443, 310, 193, 116, 53, 13), "SDXL", _AYS),
    "dmd2-sdxl-1": TimestepList((399,), "DMD2's one-step UNet of SDXL", _DMD2),
    "dmd2-sdxl-4": TimestepList((999, 749, 499, 249), "DMD2's four-step UNet and LoRA of SDXL", _DMD2),
    "hyper-sdxl-1": TimestepList((800,), "Hyper-SD's one-step UNet of SDXL", _HYPER),
}
NAMES = tuple(_LISTS)
#: Times of the training schedule that the lists count on.
TRAINED = 1000


class PowerLaw(Frozen):
    """Model times by a power law, t = 1000·(share of the steps that are left)^power - 1, rounded. It is this project's own."""

    power: float = Field(gt=0, le=10, description="1 is even; above 1 more steps have little noise, below 1 more have much")

    def times(self, steps: int) -> tuple[int, ...]:
        """So many times, falling; at power 1 those that diffusers calls trailing."""
        return tuple(round(TRAINED * ((steps - index) / steps) ** self.power) - 1 for index in range(steps))

    def problem(self, steps: int) -> str:
        """Why this cannot be over so many steps, and what can; else nothing."""
        times = self.times(steps)
        if times[-1] >= 0 and all(later < earlier for earlier, later in itertools.pairwise(times)):
            return ""
        return f"timesteps: at a power of {self.power:g} the last of {steps} steps fall together; take fewer, or a lower power"


def found(name: Name) -> TimestepList:
    """The list of that name."""
    return _LISTS[name]
