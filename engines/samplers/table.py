"""A compiled sampler: coefficients over the latents that exist so far.

The history is a list that only grows. `draw` appends noise, `given` a latent that the caller has, `eval` mixes the history
into a model input and appends the model's output, `emit` mixes the history into the result. Every linear sampler is a
sequence of these. `scaled` appends a mix of the history by a ratio of two norms, which each picture has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from engines.errors import UnsupportedError
from engines.sampler_ops import (
    Draw,
    Emit,
    Eval,
    GivenLatent,
    Ops,
    Row,
    Scaled,
    append,
    fitting,
    no_rows_for_a_mask,
    norms,
    not_finite,
    step_name,
)
from engines.samplers import Denoise, OnStep, Step
from engines.samplers import Draw as Drawing
from engines.strict import Frozen

__all__ = ["Table"]
_LIMIT = 256 * 2**20


class TableProvenance(Frozen):
    """What the table was read off, and how far its play was from the real scheduler, of the terms that it sums."""

    scheduler: str
    config: dict[str, Any]
    library: str
    steps: int = Field(ge=1)
    step: dict[str, float] = Field(default_factory=dict)
    timesteps: tuple[float, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    height: int | None = None
    width: int | None = None
    deviation: float = Field(ge=0)


class Table(Frozen):
    """A sampler as data. A row may be shorter than the history: the rest counts nothing.

    Format 1 had only rows, no `given`; of format 3 are tables whose evals ask for more than latent and time, and of format 4
    those that go on from a latent which another run has left, and draw nothing first, and those that have a `scaled`.
    """

    format: Literal[1, 2, 3, 4] = 2
    provenance: TableProvenance
    ops: Ops

    @model_validator(mode="after")
    def _closed(self) -> Self:
        first = ("draw", "given") if self.format >= 4 else ("draw",)
        if len(self.ops) < 2 or self.ops[0].op not in first or self.ops[-1].op != "emit":
            raise ValueError(f"a table must begin with {' or '.join(first)} and end with emit")
        for index, op in enumerate(self.ops):
            if isinstance(op, Emit) and index + 1 != len(self.ops):
                raise ValueError(f"op {index} is a second emit")
            if isinstance(op, Eval) and op.shallow and not any(isinstance(each, Eval) for each in self.ops[:index]):
                raise ValueError(f"op {index} is shallow, and no eval before it has left a deep feature")
            rows = (op.row, op.over, op.under) if isinstance(op, Scaled) else ()
            rows = (op.row, op.kept or ()) if isinstance(op, Eval | Emit) else rows
            if (most := max(map(len, rows), default=0)) > index:
                raise ValueError(f"op {index} mixes {most} latents, and only {index} exist")  # each op before appended one
        if any(isinstance(op, Scaled) for op in self.ops) and any(isinstance(op, GivenLatent) for op in self.ops):
            raise ValueError("a table that starts from a given latent has no scaled")
        if len({op.kept is None for op in self.ops if isinstance(op, Eval | Emit)}) > 1:
            raise ValueError("either every eval and emit says what a mask keeps, or none does")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a table's JSON file; raise BundleError when it is damaged."""
        return cls.read(path, _LIMIT)

    def dump(self, path: Path) -> None:
        """Write the JSON file that `load` reads, one op a line."""
        rest = self.model_dump(mode="json", exclude={"ops"})
        path.write_text(f'{_head(rest)},\n  "ops": {_lines(self.ops)}\n}}\n', encoding="utf-8")

    @classmethod
    def load_start(cls, path: Path, start: int, *, alone: bool = False, strength: float = 1.0) -> Self:
        """Read, of what `Starts` wrote, the table that leaves out `start` steps, or is of a `strength`; `alone` as there.

        Raises:
            BundleError: the file is damaged.
            UnsupportedError: there is no such start.

        """
        found = Starts.read(path, _LIMIT)
        start = start if found.strengths is None or alone else found.spread(strength)
        if not 0 <= start < len(found.starts) or (alone and start):
            raise UnsupportedError(f"{path} has no table that leaves out {start} of {len(found.starts)} steps.")
        return cls(format=found.format, provenance=found.provenance, ops=found.alone if alone else found.starts[start])

    @classmethod
    def load_between(cls, path: Path, start: float | None, end: float | None) -> Self:
        """Read, of what `Handovers` wrote, the table that begins at a share of the noise's way, or stops at one.

        Raises:
            BundleError: the file is damaged.
            UnsupportedError: nothing is left between the two.

        """
        found = Handovers.read(path, _LIMIT)
        return cls(format=4, provenance=found.provenance, ops=found.between(start, end))

    def play(
        self,
        denoise: Denoise,
        draw: Drawing,
        on_step: OnStep | None = None,
        given: Mapping[str, np.ndarray] | None = None,
        mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Run the sampler; the state is float32 whatever the model computes in.

        Args:
            denoise: the model.
            draw: the noise.
            on_step: told after every evaluation.
            given: latents by the names that the table asks for.
            mask: bool, broadcasts to the latent: True where it is made anew, False where the table's `kept` rows count.

        Returns:
            The final latent, a new float32 array of the shape of the first noise.

        Raises:
            UnsupportedError: `denoise`, `draw` or `given` has another shape, a given latent is missing, the table has no rows
                for a mask, or the denoiser returned NaN or infinity.

        """
        history: list[np.ndarray] = []
        step, total = 0, sum(isinstance(op, Eval) for op in self.ops)
        for op in self.ops:
            match op:
                case Draw() | GivenLatent():
                    history.append(append(op, history, draw, given))
                case Eval():
                    step += 1
                    where = step_name(step, total, op.t)
                    latent = _mixed(op, history, mask)
                    output = fitting(denoise(latent, op.t, **op.asks()), history, where)
                    if not np.isfinite(output).all():
                        raise not_finite(where)
                    history.append(output)
                    if on_step:
                        preview = op.preview and _mix(op.preview, [latent, output])
                        on_step(Step(step, total, latent, preview, op.t))
                case Scaled():
                    history.append(_scaled(op, history))
                case Emit():
                    break
        return _mixed(self.ops[-1], history, mask)  # pyright: ignore[reportArgumentType] - validated: the last op is the emit


class Starts(Frozen):
    """Tables that start from a given latent, `image`, of one scheduler.

    `starts[k]` leaves out the first k steps and begins with the image under as much noise as step k + 1 expects. `alone` takes
    every step and begins with noise alone, as inpainting does at full strength; the image is then only in what is kept.

    `strengths`: where all steps are taken, spread over the strength, the smallest one of each of the `starts`.
    """

    format: Literal[2, 3] = 2
    provenance: TableProvenance
    alone: Ops
    starts: tuple[Ops, ...]
    strengths: tuple[float, ...] | None = None

    def spread(self, strength: float) -> int:
        """Which of the starts is of a strength; raise UnsupportedError where the steps cannot be spread over so little."""
        found = sum(least <= strength for least in self.strengths or ()) - 1
        if found < 0 and self.strengths:
            raise UnsupportedError(
                f"strength {strength:g}: {self.provenance.steps} steps cannot be spread over so little. Give at least "
                f"{self.strengths[0]:g}, or fewer steps."
            )
        return found

    @model_validator(mode="after")
    def _each_is_a_table(self) -> Self:
        if self.strengths is not None:
            if len(self.strengths) != len(self.starts) or list(self.strengths) != sorted({*self.strengths}):
                raise ValueError(f"there must be a start of each strength, in ascending order, not {len(self.starts)}")
        elif len(self.starts) != self.provenance.steps:
            raise ValueError(f"there must be {self.provenance.steps} starts, one per step, not {len(self.starts)}")
        for ops in (self.alone, *self.starts):
            Table(provenance=self.provenance, ops=ops)
        return self

    def dump(self, path: Path) -> None:
        """Write the JSON file that `Table.load_start` reads, one op a line."""
        rest = self.model_dump(mode="json", exclude={"alone", "starts", *({"strengths"} if self.strengths is None else ())})
        starts = ",\n  ".join(_lines(ops) for ops in self.starts)
        path.write_text(f'{_head(rest)},\n  "alone": {_lines(self.alone)},\n  "starts": [{starts}]\n}}\n', encoding="utf-8")


class Handovers(Frozen):
    """Tables of runs that stop, or begin, between two evaluations, where one model hands its latent over to another.

    `whole` begins with noise. `starts[k]` leaves out the first k evaluations, and begins with the latent that another run has
    left there, `image`. Evaluations are at the `times`, and `training_times` is how many the noise's whole way has.

    `paired`: whether the scheduler is of second order, whose evaluations but the first are two and two at a time.
    """

    format: Literal[4] = 4
    provenance: TableProvenance
    training_times: int = Field(ge=1)
    paired: bool
    times: tuple[float, ...] = Field(min_length=1)
    whole: Ops
    starts: dict[int, Ops]

    @staticmethod
    def left_out(count: int, below: int, *, paired: bool) -> int:
        """How many of `count` evaluations are left out where so many lie below the cut, as diffusers has it."""
        return count - (below + (paired and below % 2 == 0))

    @classmethod
    def reached(cls, count: int, *, paired: bool) -> list[int]:
        """How many of so many evaluations some cut leaves out, but for all of them."""
        found = {cls.left_out(count, below, paired=paired) for below in range(count + 1)}
        return sorted(left for left in found if 0 <= left < count)

    def between(self, start: float | None, end: float | None) -> Ops:
        """The ops from one share of the noise's way to another; None is all the way, from noise and to the end.

        Raises:
            UnsupportedError: nothing is left between them; says what there is.

        """
        ops, times = self.whole, self.times
        if start is not None:
            below = sum(time < self._cut(start) for time in times)
            left = self.left_out(len(times), below, paired=self.paired)
            if left not in self.starts:
                last = 1 - self.times[-1] / self.training_times
                raise UnsupportedError(f"denoising_start {start:g} leaves no step. The last one begins before {last:.3g}.")
            ops, times = self.starts[left], times[left:]
        if end is None:
            return ops
        taken = sum(time >= self._cut(end) for time in times)
        if not taken:
            first = 1 - times[0] / self.training_times
            raise UnsupportedError(f"denoising_end {end:g} takes no step. The first one is at {first:.3g}.")
        return _stopped(ops, taken)

    def _cut(self, share: float) -> int:
        """The time of a share, as diffusers rounds it."""
        return round(self.training_times - share * self.training_times)

    @model_validator(mode="after")
    def _each_is_a_table(self) -> Self:
        for left, ops in ((0, self.whole), *self.starts.items()):
            Table(format=4, provenance=self.provenance, ops=ops)
            evals = [op for op in ops if isinstance(op, Eval)]
            if [op.t for op in evals] != list(self.times[left:]) or any(op.own is None for op in evals):
                raise ValueError(f"what leaves out {left} must evaluate at all times after them, and say what is its own")
        return self

    def dump(self, path: Path) -> None:
        """Write the JSON file that `Table.load_between` reads, one op a line."""
        rest = self.model_dump(mode="json", exclude={"whole", "starts"})
        starts = ",\n  ".join(f'"{left}": {_lines(ops)}' for left, ops in self.starts.items())
        path.write_text(f'{_head(rest)},\n  "whole": {_lines(self.whole)},\n  "starts": {{{starts}}}\n}}\n', encoding="utf-8")


def _stopped(ops: Ops, taken: int) -> Ops:
    """The ops up to so many evaluations, and then what the next one would see, as the sampler's own latent."""
    evals = [(index, op) for index, op in enumerate(ops) if isinstance(op, Eval)]
    if taken == len(evals):
        return ops
    index, seen = evals[taken]
    return (*ops[:index], Emit(row=tuple((seen.own or 1.0) * number for number in seen.row)))


def _head(rest: Mapping[str, Any]) -> str:
    return json.dumps(rest, indent=2, sort_keys=True).removesuffix("\n}")


def _lines(ops: Ops) -> str:
    lines = ",\n    ".join(json.dumps(op.model_dump(mode="json", exclude_none=True)) for op in ops)
    return f"[\n    {lines}\n  ]"


def _mixed(op: Eval | Emit, history: Sequence[np.ndarray], mask: np.ndarray | None) -> np.ndarray:
    """What an op makes of the history: outside of the mask, by the row of what is kept."""
    if mask is None:
        return _mix(op.row, history)
    if op.kept is None:
        raise no_rows_for_a_mask()
    return np.where(mask, _mix(op.row, history), _mix(op.kept, history))


def _scaled(op: Scaled, history: Sequence[np.ndarray]) -> np.ndarray:
    """What is appended; NaN or infinity of nothing at all, which the denoiser's check finds."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = norms(_mix(op.over, history)) / norms(_mix(op.under, history))
        return _mix(op.row, history) * (ratio**op.power).astype(np.float32)


def _mix(row: Row, history: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of coefficient times latent, in float32, in a new array."""
    mixed, term = np.zeros_like(history[0]), np.empty_like(history[0])
    with np.errstate(over="ignore", invalid="ignore"):  # a hostile row overflows; the denoiser's check finds it
        for coefficient, latent in zip(np.asarray(row, np.float32), history, strict=False):
            if coefficient:
                np.multiply(latent, coefficient, out=term)
                mixed += term
    return mixed
