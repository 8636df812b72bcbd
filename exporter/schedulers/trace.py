"""Read a scheduler's table off, and prove it.

A linear sampler acts on every pixel alike, by sums with constant coefficients. So its coefficients can be read off by running
diffusers' own scheduler once on the identity matrix: pixel j of every latent is the probe of the j-th latent that came to be.
Linearity is not assumed: a second run on random latents must give what the table gives, played by the player that ships.

The scheduler runs in float64 for both. In float32 a zero-SNR schedule, which begins at sigma 4096, rounds as much away as a
clipped sample looks bent: what is refused is to be the bend. The player is float32, as it ships.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from engines.errors import UnsupportedError
from engines.sampler_ops import Row
from engines.samplers import Step
from engines.samplers.table import Draw, Emit, Eval, GivenLatent, Scaled, Table, TableProvenance
from exporter.models.predictor_corrector import corrects
from exporter.schedulers.corrections import own_share
from exporter.schedulers.loop import FailedError, Loop, drive

#: How far the table may be from the scheduler, as a share of the terms summed: linear ones stay near 1e-6, clipping shows 0.1.
TOLERANCE = 1e-4
#: Sizes of the latents in the proof: a bend that shows only far from, or only near, the origin shows in one of them.
SCALES = (1e-2, 1.0, 30.0)
#: Options that bend a scheduler.
BENDS = ("clip_sample", "clip_denoised", "thresholding")
#: Name of the given latent in a table.
IMAGE = "image"


def trace(make: Callable[[], Any], loop: Loop, provenance: TableProvenance, *, stops: bool = False) -> Table:
    """Read the table off: one run on the identity matrix.

    Where the loop starts from a given latent, the identity comes twice, once inside of a mask and once outside.

    Args:
        make: returns a fresh scheduler.
        loop: what the pipeline would be asked for.
        provenance: goes into the table.
        stops: whether each evaluation is to say what the scheduler's own latent is, for runs that stop before it.

    Returns:
        The table, not yet proved; coefficients are float32, as short as they can be read back.

    Raises:
        UnsupportedError: a step adds a constant, gives NaN or infinity, or changes the shape.

    """
    probes = _Probes(provenance.scheduler, loop, make)
    masked = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1) if loop.start is not None else None
    given = probes.given if loop.given else None
    own = {"own": probes.own} if stops else {}
    scheduler = make()
    if corrects(scheduler):
        scheduler.ratio_scaled = probes.scaled
    final = drive(scheduler, loop, probes.model, probes.draw, probes.shape, given=given, mask=masked, peek=probes.peek, **own)
    row, kept = probes.mixed(final)
    form = 4 if stops or any(isinstance(op, Scaled) for op in probes.ops) else 2
    return Table(format=form, provenance=provenance, ops=(*probes.ops, Emit(row=row, kept=kept)))


class _Probes:
    """Answers a scheduler with the identity, column by column, and writes down what it makes of it."""

    def __init__(self, name: str, loop: Loop, make: Callable[[], Any]) -> None:
        self._name, self._steps, self._make = name, loop.steps, make
        self.ops: list[Draw | GivenLatent | Eval | Scaled | Emit] = []
        self._latent: torch.Tensor | None = None
        # Two evaluations and two noises a step, and a slow start; of each correction an evaluation, a noise, and two that scale.
        scheduler = make()
        most = 4 + (4 * scheduler.config.correct_steps if corrects(scheduler) else 0)
        self.shape = (1, 1, 1 if loop.start is None else 2, most * loop.steps + 16)

    def draw(self, wanted: tuple[int, ...]) -> torch.Tensor:
        """Answer with noise."""
        if wanted != self.shape:
            raise UnsupportedError(f"{self._name} draws noise of another shape than the latent's. Choose another scheduler.")
        return self._append(Draw())

    def given(self) -> torch.Tensor:
        """Answer with the given latent."""
        return self._append(GivenLatent(name=IMAGE))

    def model(self, latent: torch.Tensor, time: float) -> torch.Tensor:
        """Answer as the model."""
        if not math.isfinite(time):
            raise FailedError(f"{self._name} asks the model at time {time}.\nChoose other steps or another scheduler.")
        row, kept = self.mixed(latent)
        return self._append(Eval(t=time, row=row, kept=kept, own=self._factor(latent, time)))

    def own(self, latent: torch.Tensor) -> None:
        """Keep the scheduler's own latent, of which the next evaluation is told a multiple."""
        self._latent = latent

    def _factor(self, scaled: torch.Tensor, time: float) -> float | None:
        """How many times the model's input the scheduler's own latent is; None where nobody asks."""
        if self._latent is None:
            return None
        own, seen = self._latent.flatten().numpy(), scaled.flatten().numpy()
        factor = float(own @ seen / (seen @ seen)) if seen.any() else 0.0
        if not factor > 0 or not np.allclose(own, factor * seen, rtol=TOLERANCE, atol=TOLERANCE * np.abs(own).max()):
            raise UnsupportedError(
                f"{self._name} shows the model no multiple of its latent at time {time:g}, so a run cannot stop there.\n"
                "Leave sampler.handover out, or choose another scheduler."
            )
        return _short(np.array([factor]))[0]

    def scaled(self, value: torch.Tensor, over: torch.Tensor, under: torch.Tensor, power: Literal[1, 2]) -> torch.Tensor:
        """Answer with what is scaled by a ratio of norms."""
        rows = [self.mixed(each)[0] for each in (value, over, under)]
        return self._append(Scaled(row=rows[0], over=rows[1], under=rows[2], power=power))

    def peek(self, clean: torch.Tensor | None) -> None:
        """Write down what the clean latent of the last evaluation consists of."""
        index = max(index for index, op in enumerate(self.ops) if isinstance(op, Eval))
        op = self.ops[index]
        if isinstance(op, Eval) and clean is not None:
            pair = _pair(clean.reshape(-1, self.shape[-1])[0].numpy(), op.row, index)
            self.ops[index] = op.model_copy(update={"preview": pair})

    def mixed(self, latent: torch.Tensor) -> tuple[Row, Row | None]:
        """Read the rows off: inside of the mask, and outside where there is one."""
        fits, width = tuple(latent.shape) == self.shape, len(self.ops)
        rows = latent.reshape(-1, self.shape[-1]).numpy() if fits else np.full((1, 1), np.nan)
        if not np.isfinite(rows).all():
            raise FailedError(
                f"{self._name} gives NaN, infinity or another shape at {self._steps} steps.\n"
                "Choose other steps or another scheduler."
            )
        if rows[:, width:].any():
            raise UnsupportedError(f"{self._name} adds a constant to the latent, so it is not linear{_advice(self._make())}.")
        row, *kept = (_short(np.trim_zeros(each[:width], "b")) for each in rows)
        return row, kept[0] if kept else None

    def _append(self, op: Draw | GivenLatent | Eval | Scaled) -> torch.Tensor:
        self.ops.append(op)
        if len(self.ops) > self.shape[-1]:
            raise UnsupportedError(
                f"{self._name} uses more than {self.shape[-1]} latents in {self._steps} steps. Choose another scheduler."
            )
        latent = torch.zeros(self.shape, dtype=torch.float64)
        latent[..., len(self.ops) - 1] = 1.0
        return latent


def _short(row: np.ndarray) -> Row:
    return tuple(float(str(value)) for value in row.astype(np.float32))


def _pair(clean: np.ndarray, seen: Sequence[float], index: int) -> tuple[float, float] | None:
    """How much of the model's input, `seen`, and of its output, latent `index`, a clean latent consists of.

    None where it is not finite, as at a time of pure noise, or holds noise that was drawn after the evaluation.
    """
    if not np.isfinite(clean).all() or clean[index + 1 :].any():
        return None
    before, row = clean[:index].astype(np.float64), np.zeros(index)
    row[: len(seen)] = seen
    share = float(before @ row / (row @ row)) if row.any() else 0.0
    first, second = _short(np.array([share, clean[index]]))
    return first, second


@dataclass
class _Events:
    """What happened in a run on random latents, in order; `clean` is empty at a step that does not say."""

    times: list[float | None] = field(default_factory=list)  # of an evaluation; None for what was drawn or given
    history: list[np.ndarray] = field(default_factory=list)
    seen: list[np.ndarray] = field(default_factory=list)
    own: list[np.ndarray] = field(default_factory=list)
    clean: list[np.ndarray | None] = field(default_factory=list)


def prove(table: Table, make: Callable[[], Any], loop: Loop) -> float:
    """Play the table against the scheduler on random latents of another shape than the trace's, at every scale in `SCALES`.

    Compared are every model input, time and preview, the order of draws and evaluations, and the result; where there is a given
    latent, once without a mask and once with a random one.

    Returns:
        The worst deviation, as a share of the terms that the table sums there.

    Raises:
        UnsupportedError: it is above `TOLERANCE`, or a time differs; says which option to change.

    """
    name, worst = table.provenance.scheduler, own_share(make(), loop)
    planned = [op.t if isinstance(op, Eval) else None for op in table.ops[:-1]]
    for seed, scale in enumerate(SCALES):
        for masked in (False, True) if loop.start is not None else (False,):
            random = np.random.Generator(np.random.Philox(seed))
            mask = random.random((1, 1, 4, 5)) < 0.5 if masked else None
            events = _replay(make(), loop, random, scale, mask)
            if planned != events.times:
                raise UnsupportedError(
                    f"{name}'s times or draws depend on the data, so no table holds them. "
                    "Choose another: `t2iexport list samplers`."
                )
            worst = max(worst, _deviation(table, events, mask))
    if not worst <= TOLERANCE:
        raise UnsupportedError(
            f"{name} is not a linear sampler: its table is {worst:.1e} off, and {TOLERANCE:.0e} is allowed{_advice(make())}."
        )
    return worst


def _replay(scheduler: Any, loop: Loop, random: np.random.Generator, scale: float, mask: np.ndarray | None) -> _Events:  # noqa: ANN401 - a diffusers scheduler
    """Run the scheduler once on random latents; the last of `seen` is the result."""
    events, shape = _Events(), (2, 3, 4, 5)

    def fresh(time: float | None = None) -> torch.Tensor:
        events.times.append(time)
        events.history.append(random.standard_normal(shape, dtype=np.float32) * np.float32(scale))
        return torch.from_numpy(events.history[-1].astype(np.float64))  # a copy: the scheduler may write on it

    def model(latent: torch.Tensor, time: float) -> torch.Tensor:
        events.seen.append(latent.numpy().copy())
        return fresh(time)

    def peek(clean: torch.Tensor | None) -> None:
        events.clean.append(None if clean is None else clean.numpy().copy())

    made_anew = None if mask is None else torch.from_numpy(mask.astype(np.float64))
    given = fresh if loop.given else None

    def own(latent: torch.Tensor) -> None:
        events.own.append(latent.numpy().copy())

    if corrects(scheduler):
        real = scheduler.ratio_scaled

        def ratio_scaled(*given: Any) -> torch.Tensor:  # noqa: ANN401 - three latents and a power
            found = real(*given)
            events.times.append(None)
            events.history.append(found.numpy().astype(np.float32))
            return found

        scheduler.ratio_scaled = ratio_scaled
    final = drive(scheduler, loop, model, lambda _: fresh(), shape, given=given, mask=made_anew, peek=peek, own=own)
    events.seen.append(final.numpy())
    return events


def _deviation(table: Table, events: _Events, mask: np.ndarray | None) -> float:
    latents: dict[type, list[np.ndarray]] = {Draw: [], GivenLatent: [], Eval: [], Scaled: []}
    for op, latent in zip(table.ops, events.history, strict=False):
        latents[type(op)].append(latent)
    draws, answers, times, steps = iter(latents[Draw]), iter(latents[Eval]), list[float](), list[Step]()

    def denoise(latent: np.ndarray, timestep: float | np.ndarray, *_: object, **__: object) -> np.ndarray:  # noqa: ARG001 - the sampler's
        times.append(float(timestep))
        return next(answers)

    given = dict(zip([IMAGE], latents[GivenLatent], strict=False))
    result = table.play(denoise, lambda: next(draws), steps.append, given, mask)
    asked = [op for op in table.ops if isinstance(op, Eval | Emit)]
    if times != [op.t for op in asked if isinstance(op, Eval)] or len(events.seen) != len(steps) + 1:
        return math.inf
    shares = [0.0]
    for index, (op, got, wanted) in enumerate(zip(asked, (*(step.latent for step in steps), result), events.seen, strict=True)):
        rows = [row for row in (op.row, op.kept if mask is not None else None) if row is not None]
        shares.append(_share(got, wanted, [(row, events.history) for row in rows]))
        if isinstance(op, Eval) and op.own is not None:
            row = tuple(op.own * number for number in op.row)
            shares.append(_share(got * np.float32(op.own), events.own[index], [(row, events.history)]))
        clean = events.clean[index] if index < len(steps) else None
        if clean is not None and isinstance(op, Eval) and op.preview:
            sums = [(op.preview, (wanted, latents[Eval][index]))]
            shares.append(math.inf if (preview := steps[index].preview) is None else _share(preview, clean, sums))
    return max(shares)


def _share(got: np.ndarray, wanted: np.ndarray, sums: Sequence[tuple[Sequence[float], Sequence[np.ndarray]]]) -> float:
    """The worst error as a share of the terms summed.

    By the largest of each latent: schedulers cancel large terms too, and leave their rounding where the sum is small.
    """
    terms = max(
        sum((abs(c) * np.abs(latent) for c, latent in zip(row, latents, strict=False)), np.zeros_like(wanted)).max()
        for row, latents in sums
    )
    error = np.abs(got - wanted).max()
    return 0.0 if error == 0 else float(error / terms) if terms > 0 and error < np.inf else math.inf


def _advice(scheduler: Any) -> str:  # noqa: ANN401 - a diffusers scheduler
    if bends := [f"{key}: false" for key in BENDS if scheduler.config.get(key)]:
        return f". Set in the recipe's sampler.config: {', '.join(bends)}"
    return ". Choose another: `t2iexport list samplers`"
