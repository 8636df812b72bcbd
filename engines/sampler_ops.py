"""What an unrolled sampler is made of: five ops over a history of latents, and the checks that every player makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from engines.errors import UnsupportedError
from engines.samplers import Draw as Drawing
from engines.signature import Name
from engines.strict import Frozen

Row = tuple[float, ...]


class Draw(Frozen):
    """Append standard normal noise; the first is the initial latent."""

    op: Literal["draw"] = "draw"


class GivenLatent(Frozen):
    """Append the caller's latent of that name."""

    op: Literal["given"] = "given"
    name: Name


class Eval(Frozen):
    """Append the model's output for `row` · history at the model time `t`.

    `kept` is the row where a mask keeps the given latent. `preview` are two numbers: that many times the model's input, and
    that many times its output, are the clean latent that it points to. `guided` is the share of the guidance that counts here:
    0 is the prompt alone, for which one branch is enough; null is all of it. Where it is `shallow`, the model's outermost layers
    answer alone, on the deep feature that the last eval which is not has left. So many times what the model is given is the
    sampler's `own` latent, which a run that stops here returns; null where nobody is to stop.
    """

    op: Literal["eval"] = "eval"
    t: float
    row: Row
    kept: Row | None = None
    preview: tuple[float, float] | None = None
    guided: float | None = Field(default=None, ge=0)
    shallow: Literal[True] | None = None
    own: float | None = Field(default=None, gt=0)

    def asks(self) -> dict[str, Any]:
        """What the denoiser is asked for beside latent and time, by the names of its arguments."""
        return {name: value for name in ("guided", "shallow") if (value := getattr(self, name)) is not None}


class Emit(Frozen):
    """Return `row` · history; `kept` is the row where a mask keeps the given latent."""

    op: Literal["emit"] = "emit"
    row: Row
    kept: Row | None = None


class Scaled(Frozen):
    """Append `row` · history times, for each picture, (‖`over` · history‖ / ‖`under` · history‖) to the `power`.

    What a Langevin correction is made of, whose step is as long as noise and the model's answer are in proportion.
    """

    op: Literal["scaled"] = "scaled"
    row: Row
    over: Row
    under: Row
    power: Literal[1, 2]


Ops = tuple[Annotated[Draw | GivenLatent | Eval | Scaled | Emit, Field(discriminator="op")], ...]


def append(
    op: Draw | GivenLatent, history: Sequence[np.ndarray], draw: Drawing, given: Mapping[str, np.ndarray] | None
) -> np.ndarray:
    """Return the latent that a `draw` or a `given` appends; raise UnsupportedError where it is missing or does not fit."""
    if isinstance(op, Draw):
        return fitting(draw(), history, "draw")
    if op.name not in (given or {}):
        raise UnsupportedError(f"this sampler starts from a given latent named {op.name!r}. Give it.")
    return fitting((given or {})[op.name], history, f"the given {op.name}")


def norms(latent: np.ndarray) -> np.ndarray:
    """The norm of each picture, float64 (B, 1, …)."""
    axes = tuple(range(1, latent.ndim))
    return np.sqrt(np.square(latent, dtype=np.float64).sum(axis=axes, keepdims=True))


def fitting(array: np.ndarray, history: Sequence[np.ndarray], where: str) -> np.ndarray:
    """Return a float32 copy of what has the shape of the first latent; raise UnsupportedError for another shape."""
    if history and array.shape != history[0].shape:
        raise UnsupportedError(f"{where} returned shape {list(array.shape)}; the latent has {list(history[0].shape)}.")
    return np.array(array, np.float32)  # a copy: whoever made it may use its buffer again


def step_name(step: int, total: int, time: float) -> str:
    """Name an evaluation, counted from 1, in messages."""
    return f"step {step} of {total} (t = {time:g}): the denoiser"


def not_finite(where: str) -> UnsupportedError:
    """Return the error for a model output that is no number."""
    return UnsupportedError(f"{where} returned NaN or infinity. If it computes in fp16, build it with precision bf16 or fp32.")


def no_rows_for_a_mask() -> UnsupportedError:
    """Return the error for a mask where the table has no `kept` rows."""
    return UnsupportedError("this sampler has no rows for what a mask keeps. Play it without a mask.")
