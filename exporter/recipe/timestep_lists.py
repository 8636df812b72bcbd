"""Published lists of model times, by name, each with where it was published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


def found(name: Name) -> TimestepList:
    """The list of that name."""
    return _LISTS[name]
