"""Parallel sampling: plays a compiled sampler with many evaluations in one batch, by Picard iteration.

An unrolled sampler is a triangular system: the input of every evaluation is a known sum of noises and earlier outputs. So
guess all outputs in a window, mix the inputs that follow from them, evaluate the whole window at once, put the outputs in the
guesses' place, accept from the left what no longer moves, slide the window, repeat (ParaDiGMS, arXiv 2305.16317).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np
from pydantic import Field

from engines.errors import BundleError, UnsupportedError
from engines.parallel.dense import DenseProgram
from engines.sampler_ops import (
    Draw,
    Eval,
    GivenLatent,
    Ops,
    Scaled,
    append,
    fitting,
    no_rows_for_a_mask,
    not_finite,
    step_name,
)
from engines.samplers import Denoise, OnStep, Player, Step
from engines.samplers import Draw as Drawing
from engines.strict import Frozen

__all__ = ["Picard"]
#: Share of an input's move that a guessed output answers as if the clean latent stood still. All of it is right for noise, none
#: for what the model has drawn itself; measured: docs/decisions/0010-parallel-sampling.md.
_HELD = 0.7
#: Of the trace, added to the diagonal of Anderson's least squares.
_RIDGE = 1e-6


class Unrolled(Protocol):
    """A compiled sampler, such as a table."""

    @property
    def ops(self) -> Ops:
        """Its ops, an emit at the end."""
        ...


class Picard(Frozen):
    """How to play a compiled sampler in parallel.

    Attributes:
        window: evaluations of one picture in one batch.
        tolerance: an evaluation is accepted when it and those before it in the window saw inputs at most this far, as root
            mean square over the picture, from what the outputs just computed mix to; samplers keep the variance of inputs
            near 1. 0 accepts only what is exact: the first of a window, and what follows on guesses right to the last bit.
        anderson: earlier iterations that Anderson acceleration looks back on (ParaTAA, arXiv 2402.09970); 0 is without.

    """

    window: int = Field(default=32, ge=1, le=4096)
    tolerance: float = Field(default=0.03, ge=0)
    anderson: int = Field(default=1, ge=0, le=8)

    def __str__(self) -> str:
        """As `--parallel` takes it."""
        return ",".join(f"{name}={value}" for name, value in self)

    @classmethod
    def load(cls, path: Path) -> NoReturn:
        """Refuse: a bundle holds samplers, and this is a way to play one."""
        raise BundleError(f"{path}: 'picard' is a way to play a table, no kind of sampler. Build the bundle again.")

    def over(self, sampler: Player | Unrolled, start: np.ndarray | None = None) -> Parallel:
        """Return the parallel player of a compiled sampler.

        Args:
            sampler: what is played.
            start: `outputs` of an earlier run of the same sampler, of as many pictures of the same size, to begin with;
                worth it where noise and prompts are nearly the same.

        Raises:
            UnsupportedError: the sampler is no table.

        """
        ops: Ops | None = getattr(sampler, "ops", None)
        if ops is None:
            raise UnsupportedError("only compiled samplers (tables) run in parallel; this one is none. Leave parallel out.")
        if any(isinstance(op, Eval) and op.shallow for op in ops):
            raise UnsupportedError(
                "this sampler caches: its steps use what earlier ones left, so they cannot run side by side. Leave parallel out, "
                "or build without sampler.cache."
            )
        if any(isinstance(op, Scaled) for op in ops):
            raise UnsupportedError(
                "this sampler corrects by how large the model's answers are, so its steps cannot run side by side. "
                "Leave parallel out."
            )
        return Parallel(self, ops, start)


@dataclass(frozen=True)
class Effort:
    """What one picture took.

    Attributes:
        iterations: denoiser batches that it was part of; the depth of the computation.
        evaluations: of the denoiser, in all of them.
        sequential: evaluations, each a step of its own, that one after the other would take.

    """

    iterations: int
    evaluations: int
    sequential: int

    def facts(self) -> dict[str, str]:
        """As text, for the picture's `info`."""
        return {name: str(getattr(self, name)) for name in ("iterations", "evaluations", "sequential")}


class Parallel:
    """Plays ops in parallel.

    Attributes:
        efforts: of the last play, one per picture.
        outputs: of the model in the last play, float32 (evaluations, B, C, H, W): a later run can start from them.

    """

    efforts: tuple[Effort, ...] = ()
    outputs: np.ndarray | None = None

    def __init__(self, options: Picard, ops: Ops, start: np.ndarray | None = None) -> None:
        """Play `ops`, from the outputs `start` if given."""
        self._options, self._ops, self._start, self._plan = options, ops, start, DenseProgram(ops)

    def play(
        self,
        denoise: Denoise,
        draw: Drawing,
        on_step: OnStep | None = None,
        given: Mapping[str, np.ndarray] | None = None,
        mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Run the sampler as `Table.play` does; each picture of the batch moves on at its own pace, whatever the others do.

        `on_step` is told after every iteration, with the accepted evaluations of the slowest picture as the index.
        Memory: one latent per op, as in `Table.play`, and 2 + 2 · anderson latents per place in the window.

        Raises:
            UnsupportedError: as `Table.play`; or `start` has another shape.

        """
        plan, seen = self._plan, list[np.ndarray]()
        for op in self._ops:  # all noise beforehand, in the table's own order
            if isinstance(op, Draw | GivenLatent):
                seen.append(append(op, seen, draw, given))
        shape, total = seen[0].shape, len(plan.evals)
        if mask is not None and plan.kept is None:
            raise no_rows_for_a_mask()
        masks = None if mask is None else np.broadcast_to(mask, shape).reshape(len(seen[0]), -1)
        start = self._start
        if start is not None and start.shape != (total, *shape):
            raise UnsupportedError(f"the outputs to start from must be {[total, *shape]}, got {list(start.shape)}.")
        history = np.zeros((shape[0], len(self._ops) - 1, int(np.prod(shape[1:]))), np.float32)
        history[:, plan.drawn] = np.stack(seen, axis=1).reshape(shape[0], len(seen), -1)
        pictures = [
            _Picture(
                plan,
                self._options,
                history[index],
                None if masks is None else masks[index],
                None if start is None else start[:, index].reshape(total, -1),
            )
            for index in range(shape[0])
        ]
        self.efforts, self.outputs = (), None
        with np.errstate(over="ignore", invalid="ignore"):  # a hostile row overflows; the check of the outputs finds it
            while busy := [index for index, picture in enumerate(pictures) if picture.done < total]:
                counts = [pictures[index].begin() for index in busy]
                latent = np.concatenate([pictures[index].inputs for index in busy]).reshape(-1, *shape[1:])
                times = np.concatenate([plan.times[pictures[index].window] for index in busy])
                which = np.repeat(busy, counts)
                if plan.guided is None:
                    made = denoise(latent, times, which)
                else:
                    shares = np.concatenate([plan.guided[pictures[index].window] for index in busy])
                    made = denoise(latent, times, which, guided=shares)
                output = fitting(made, [latent], "the denoiser")
                for index, own in zip(busy, np.split(output, np.cumsum(counts)[:-1]), strict=True):
                    pictures[index].learn(own.reshape(len(own), -1))
                if on_step:
                    on_step(_step(pictures, plan, shape))
            self.efforts = tuple(Effort(picture.iterations, picture.evaluations, total) for picture in pictures)
            self.outputs = history[:, plan.at].swapaxes(0, 1).reshape(total, *shape)
            return np.stack(
                [picture.mixed(total, slice(None), own) for picture, own in zip(pictures, history, strict=True)]
            ).reshape(shape)


def _step(pictures: Sequence[_Picture], plan: DenseProgram, shape: tuple[int, ...]) -> Step:
    latent = np.stack([picture.last[0] for picture in pictures]).reshape(shape)
    previews = [plan.clean(picture.done - 1, *picture.last) for picture in pictures]
    known = [preview for preview in previews if preview is not None]
    preview = np.stack(known).reshape(shape) if len(known) == len(pictures) else None
    return Step(min(picture.done for picture in pictures), len(plan.evals), latent, preview)


class _Picture:
    """One picture's window, latents flattened to (D,).

    Attributes:
        done: accepted evaluations, which is where the window begins.
        inputs: of the window's evaluations, float32 (n, D), mixed from the guesses in the history.
        last: input and output of the last accepted evaluation.

    """

    def __init__(
        self, plan: DenseProgram, options: Picard, history: np.ndarray, mask: np.ndarray | None, start: np.ndarray | None
    ) -> None:
        self._plan, self._options, self._history, self._mask, self._start = plan, options, history, mask, start
        self._past: list[tuple[np.ndarray, np.ndarray]] = []  # inputs and how far the iteration moved them, from `done` on
        self.done, self.iterations, self.evaluations = 0, 0, 0
        self.inputs = np.empty((0, history.shape[1]), np.float32)
        self.last = self.inputs.sum(axis=0), self.inputs.sum(axis=0)

    @property
    def window(self) -> slice:
        """The evaluations that are under way."""
        return slice(self.done, self.done + len(self.inputs))

    def mixed(self, rows: int | slice, columns: slice | np.ndarray, latents: np.ndarray) -> np.ndarray:
        """Those columns of those rows · latents, (D,) or (rows, D); outside of the mask by the rows of what is kept."""
        plan = self._plan
        found = plan.rows[rows][..., columns] @ latents
        return (
            found
            if self._mask is None or plan.kept is None
            else np.where(self._mask, found, plan.kept[rows][..., columns] @ latents)
        )

    def _input(self, index: int, low: int = 0) -> np.ndarray:
        """What the history from `low` on, guesses included, adds to the input of an evaluation."""
        span = slice(low, int(self._plan.at[index]))
        return self.mixed(index, span, self._history[span])

    def begin(self) -> int:
        """Fill the window up with guesses; its length."""
        at = self._plan.at
        inputs, end = list(self.inputs), min(self.done + self._options.window, len(at))
        for index in range(self.done + len(inputs), end):
            latent = self._input(index)
            before = (inputs[-1], self._history[at[index - 1]]) if inputs else self.last
            self._history[at[index]] = self._guess(index, latent, *before)
            inputs.append(latent)
        self.inputs = np.stack(inputs)
        self.iterations, self.evaluations = self.iterations + 1, self.evaluations + len(inputs)
        return len(inputs)

    def _guess(self, index: int, latent: np.ndarray, before: np.ndarray, output: np.ndarray) -> np.ndarray:
        """An output that was never computed: an earlier run's, or what keeps the clean latent, or the output before it."""
        if self._start is not None:
            return self._start[index]
        pair = self._plan.pairs[index]
        clean = self._plan.clean(index - 1, before, output) if index else np.zeros_like(latent)
        if pair is None or clean is None:
            return output
        return (clean - np.float32(pair[0]) * latent) / np.float32(pair[1])

    def learn(self, outputs: np.ndarray) -> None:
        """Take the window's outputs, (n, D): accept from the left, and move the rest on."""
        plan, first = self._plan, self.done
        finite = np.logical_and.reduce(np.isfinite(outputs), axis=1)
        if not finite[0]:
            raise not_finite(step_name(first + 1, len(plan.at), plan.evals[first].t))
        outputs = outputs if finite.all() else outputs[: np.argmin(finite)]  # a wild guess may lead where the sampler never is
        places = plan.at[first : first + len(outputs)]
        # How far each input is from where it belongs: not at all, to the last bit, where the guesses before it were right.
        moved = self.mixed(slice(first, first + len(outputs)), places, outputs - self._history[places])
        near = np.sqrt(np.square(moved, dtype=np.float64).mean(axis=1)) <= self._options.tolerance
        near[0] = True  # it saw what is accepted, even where a hostile row made the guess after it infinite
        count = len(near) if near.all() else int(np.argmin(near))
        self._history[places] = outputs
        self.done, self.last = first + count, (self.inputs[count - 1], outputs[count - 1])
        self._past = [(inputs[count:], moves[count:]) for inputs, moves in self._past]
        self.inputs = self._move(self.inputs[count : len(outputs)], outputs[count:])

    def _move(self, before: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Mix new inputs (n, D) for those that were not accepted, and put the outputs that they lead to into the history."""
        if not len(before):
            return before
        plan, first, places = self._plan, self.done, self._plan.at[self.done : self.done + len(before)]
        hold, low = plan.hold[first : first + len(before), None] * np.float32(_HELD), int(places[0])
        inputs = self.mixed(slice(first, first + len(before)), slice(low), self._history[:low])
        for index, place in enumerate(places):
            inputs[index] += self._input(first + index, low)
            self._history[place] = outputs[index] + hold[index] * (inputs[index] - before[index])
        if self._options.anderson:
            self._past = [*self._past, (before, inputs - before)][-1 - self._options.anderson :]
            inputs = inputs - _correction(self._past)
            self._history[places] = outputs + hold * (inputs - before)
        return inputs


def _correction(past: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Triangular Anderson acceleration: what to take off the newest iteration's result, (n, D).

    Each evaluation is the combination of iterations whose move, over it and the evaluations before it, would have been least;
    later ones have no say, because they depend on it. The first one's input is exact and stays.

    Args:
        past: inputs (n or fewer, D) and their moves, per iteration, the newest last.

    """
    moves, found = past[-1][1], np.zeros_like(past[-1][0])
    count = min(len(inputs) for inputs, _ in past)
    if len(past) < 2 or count < 2:
        return found
    # As differences of one iteration to the next, of inputs and of moves: float32 (iterations - 1, count, D).
    steps = np.diff(np.stack([inputs[:count] for inputs, _ in past]), axis=0)
    turns = np.diff(np.stack([moved[:count] for _, moved in past]), axis=0)
    gram: np.ndarray = np.cumsum(np.einsum("ikd,jkd->kij", turns, turns), axis=0)
    right: np.ndarray = np.cumsum(np.einsum("ikd,kd->ki", turns, moves[:count]), axis=0)
    ridge = _RIDGE * np.trace(gram, axis1=1, axis2=2) + np.finfo(np.float64).tiny
    share = np.asarray(np.linalg.solve(gram + ridge[:, None, None] * np.eye(len(turns)), right[..., None]), np.float64)[..., 0]
    share[0] = 0
    found[:count] = np.einsum("ki,ikd->kd", share, steps + turns)
    return found
