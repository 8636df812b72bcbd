"""A compiled sampler: coefficients over the latents that exist so far.

The history is a list that only grows. `draw` appends noise, `eval` mixes the history into a model input and appends the
model's output, `emit` mixes the history into the result. Every linear sampler is a sequence of these.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from engines.errors import UnsupportedError
from engines.frozen import Frozen, read_bytes, read_json
from engines.samplers import Denoise, OnStep, Step
from engines.samplers import Draw as Drawing

__all__ = ["Table"]
_LIMIT = 256 * 2**20
Row = tuple[float, ...]


class Draw(Frozen):
    """Append standard normal noise; the first is the initial latent."""

    op: Literal["draw"] = "draw"


class Eval(Frozen):
    """Append the model's output for `row` · history at the model time `t`."""

    op: Literal["eval"] = "eval"
    t: float
    row: Row


class Emit(Frozen):
    """Return `row` · history."""

    op: Literal["emit"] = "emit"
    row: Row


class Provenance(Frozen):
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
    """A sampler as data. A row may be shorter than the history: the rest counts nothing."""

    format: Literal[1] = 1
    provenance: Provenance
    ops: tuple[Annotated[Draw | Eval | Emit, Field(discriminator="op")], ...]

    @model_validator(mode="after")
    def _closed(self) -> Self:
        if [op.op for op in self.ops[:1] + self.ops[-1:]] != ["draw", "emit"]:
            raise ValueError("a table must begin with draw and end with emit")
        for index, op in enumerate(self.ops):
            if isinstance(op, Emit) and index + 1 != len(self.ops):
                raise ValueError(f"op {index} is a second emit")
            if not isinstance(op, Draw) and len(op.row) > index:  # each op before this one appended one latent
                raise ValueError(f"op {index} mixes {len(op.row)} latents, and only {index} exist")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a table's JSON file; raise BundleError when it is damaged."""
        data = read_bytes(path, _LIMIT)
        read_json(data, path)
        return cls.parse(data, path)

    def dump(self, path: Path) -> None:
        """Write the JSON file that `load` reads, one op a line."""
        content = self.model_dump(mode="json")
        ops = ",\n    ".join(json.dumps(op) for op in content.pop("ops"))
        rest = json.dumps(content, indent=2, sort_keys=True).removesuffix("\n}")
        path.write_text(f'{rest},\n  "ops": [\n    {ops}\n  ]\n}}\n', encoding="utf-8")

    def play(self, denoise: Denoise, draw: Drawing, on_step: OnStep | None = None) -> np.ndarray:
        """Run the sampler; the state is float32 whatever the model computes in.

        Returns:
            The final latent, a new float32 array of the shape of the first noise.

        Raises:
            UnsupportedError: the denoiser or `draw` returned another shape, or the denoiser NaN or infinity.

        """
        history: list[np.ndarray] = []
        step, total = 0, sum(isinstance(op, Eval) for op in self.ops)
        for op in self.ops:
            match op:
                case Draw():
                    history.append(_fitting(draw(), history, "draw"))
                case Eval():
                    step += 1
                    where = f"step {step} of {total} (t = {op.t:g}): the denoiser"
                    latent = _mix(op.row, history)
                    output = _fitting(denoise(latent, op.t), history, where)
                    if not np.isfinite(output).all():
                        raise UnsupportedError(
                            f"{where} returned NaN or infinity. If it computes in fp16, build it with precision bf16 or fp32."
                        )
                    history.append(output)
                    if on_step:
                        on_step(Step(step, total, latent))
                case Emit():
                    break
        return _mix(self.ops[-1].row, history)  # type: ignore[union-attr]  # validated: the last op is the emit


def _fitting(array: np.ndarray, history: Sequence[np.ndarray], where: str) -> np.ndarray:
    if history and array.shape != history[0].shape:
        raise UnsupportedError(f"{where} returned shape {list(array.shape)}; the latent has {list(history[0].shape)}.")
    return np.array(array, np.float32)  # a copy: whoever made it may use its buffer again


def _mix(row: Row, history: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of coefficient times latent, in float32, in a new array."""
    mixed, term = np.zeros_like(history[0]), np.empty_like(history[0])
    with np.errstate(over="ignore", invalid="ignore"):  # a hostile row overflows; the denoiser's check finds it
        for coefficient, latent in zip(np.asarray(row, np.float32), history, strict=False):
            if coefficient:
                np.multiply(latent, coefficient, out=term)
                mixed += term
    return mixed
