"""Guidance: the scales that steer a denoiser, and the value at which each of them is off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
from pydantic import model_validator

from engines.errors import UnsupportedError
from engines.plugins import did_you_mean
from engines.signature import Name
from engines.strict import Frozen

Mode = Literal["none", "classifier_free", "embedded"]
#: The scale that `--guidance-scale` sets; a denoiser can have others beside it or instead of it.
USUAL = "guidance_scale"
#: The scale that `--pag-scale` sets, of a prompt's branch whose self-attention is perturbed.
PERTURBED = "pag_scale"
#: Second axis of a denoiser's conditioning where some steps do without guidance: all branches, or the last, the prompt's own.
BRANCHES = "branches"
#: Of one scale: a number for all pictures, or one per picture.
Numbers = float | Sequence[float]


class Scale(Frozen):
    """One scale, an input of the denoiser: float32 (batch,).

    `off`: at this value the network answers as if the scale were not there, and whoever asks for less gets this value: in
    diffusers a classifier-free scale of 1 or less switches guidance off. Null for a scale that is never off.
    `follows`: whether it is off where the usual scale is, whatever was asked for.
    `perturbs`: whether a branch is its own, the prompt's once more, which the network perturbs: the first of the branches, and
    left out where the scale is off.
    """

    name: Name
    default: float
    off: float | None = None
    follows: bool = False
    perturbs: bool = False

    @model_validator(mode="after")
    def _following(self) -> Self:
        if self.follows and (self.off is None or self.name == USUAL):
            raise ValueError(f"{self.name} follows the usual scale, so it must be another, and say at which value it is off")
        if self.perturbs and (self.off is None or self.name == USUAL):
            raise ValueError(f"{self.name} has a branch of its own, so it must be another than the usual scale, and can be off")
        return self

    def told(self) -> dict[str, Any]:
        """As JSON, without what it need not say."""
        usual = {name for name in ("follows", "perturbs") if not getattr(self, name)}
        return self.model_dump(mode="json", exclude=usual)


class Guidance(Frozen):
    """How the prompt steers: compiled into the denoiser, so it cannot be run with the wrong one.

    `branches` is the second axis of token ids: 2 (negative, positive) for `classifier_free`, else 1.
    """

    mode: Mode
    scales: tuple[Scale, ...] = ()

    @classmethod
    def of(cls, mode: Mode, scale: float | None) -> Self:
        """Guidance with the usual scale alone, or with none."""
        if scale is None:
            return cls(mode=mode)
        return cls(mode=mode, scales=(Scale(name=USUAL, default=scale, off=1.0 if mode == "classifier_free" else None),))

    @model_validator(mode="after")
    def _scaled(self) -> Self:
        names = [scale.name for scale in self.scales]
        if len(set(names)) != len(names):
            raise ValueError(f"two guidance scales share a name: {names}")
        if (USUAL in names) if self.mode == "none" else not names:
            raise ValueError("guidance must have a scale unless its mode is none")
        return self

    @property
    def branches(self) -> int:
        """Prompts per picture that the text parts encode."""
        return 2 if self.mode == "classifier_free" else 1

    @property
    def rows(self) -> int:
        """Branches that the denoiser computes for a picture where every scale is on."""
        return self.branches + any(scale.perturbs for scale in self.scales)

    @property
    def scale(self) -> float | None:
        """Default of the usual scale; None where there is none."""
        return next((scale.default for scale in self.scales if scale.name == USUAL), None)

    def chosen(self, asked: Mapping[str, Numbers]) -> dict[str, Numbers]:
        """Every scale's value, as it was asked for, else its default.

        Raises:
            UnsupportedError: there is no such scale, or a value is not finite.

        """
        known = [scale.name for scale in self.scales]
        for name in asked:
            if name == PERTURBED and name not in known:
                raise UnsupportedError(
                    "this bundle has no perturbed attention, so it takes no pag_scale. Leave it out, or build the bundle with "
                    "sampler.guidance.pag."
                )
            if not known:
                raise UnsupportedError("this bundle was built without guidance, so it takes no guidance scale. Leave it out.")
            if name not in known:
                raise UnsupportedError(f"this bundle has no {name}{did_you_mean(name, known)}")
        chosen = {scale.name: asked.get(scale.name, scale.default) for scale in self.scales}
        for name, value in chosen.items():
            for number in value if isinstance(value, list | tuple) else [value]:
                if not (isinstance(number, Real) and math.isfinite(number)):
                    what = name.replace("_", " ")
                    raise UnsupportedError(f"{what} {number} is not a number to multiply by. Give a finite one.")
        return chosen

    def fed(self, asked: Numbers | Mapping[str, Numbers] | None) -> dict[str, np.ndarray]:
        """What the denoiser is given, by name: float32, of no axis for all pictures, or (pictures,).

        `asked` is of the usual scale, or of several by name. A scale that is switched off is at its `off`.

        Raises:
            UnsupportedError: as `chosen`.

        """
        named = asked if isinstance(asked, Mapping) else {} if asked is None else {USUAL: asked}
        chosen = self.chosen(named)
        floors = {scale.name: -math.inf if scale.off is None else scale.off for scale in self.scales}
        fed = {name: np.maximum(np.asarray(value, np.float32), np.float32(floors[name])) for name, value in chosen.items()}
        if USUAL in fed:
            off = fed[USUAL] == np.float32(floors[USUAL])
            following = {scale.name: np.float32(scale.off or 0.0) for scale in self.scales if scale.follows}
            fed |= {name: np.where(off, value, fed[name]) for name, value in following.items()}
        return fed

    def at(self, fed: Mapping[str, np.ndarray], share: float | np.ndarray) -> dict[str, np.ndarray]:
        """What is fed where only a share of the guidance counts, one or (pictures,); at 0 every scale is off that can be."""
        offs = {scale.name: scale.off for scale in self.scales}
        share = np.asarray(share, np.float32)

        def taken(value: np.ndarray, off: float | None) -> np.ndarray:
            return value if off is None else np.float32(off) + share * (value - np.float32(off))

        return {name: taken(value, offs[name]) for name, value in fed.items()}

    def taken(self, fed: Mapping[str, np.ndarray]) -> tuple[int, ...]:
        """Which of the text parts' branches a call computes, in its order: what is perturbed, the negative one, the prompt's own.

        The prompt's own, the last, is always there; another only where a scale that needs it is on for some picture.
        """
        last = self.branches - 1
        on = [scale.perturbs for scale in self.scales if scale.name in fed and not _all_off(scale, fed[scale.name])]
        perturbed = (last,) if True in on else ()
        return (*perturbed, *(range(last) if False in on else ()), last)


def _all_off(scale: Scale, value: np.ndarray) -> bool:
    """Whether a scale is off for every picture."""
    return scale.off is not None and bool(np.all(value == np.float32(scale.off)))
