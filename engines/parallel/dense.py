"""The ops of an unrolled sampler as arrays, for a player that mixes many of its rows at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.sampler_ops import Draw, Emit, Eval, GivenLatent, Ops

#: Least share of noise in an input for which its output can be told from the clean latent.
_LEAST = 1e-3


class DenseProgram:
    """The ops as arrays.

    Attributes:
        evals: the evaluations in order.
        at: their places in the history, int64 (evaluations,).
        drawn: places of noises and given latents.
        times: model times, float32 (evaluations,).
        guided: share of the guidance that counts, float32 (evaluations,); None where all of it does everywhere.
        rows: float32 (evaluations + 1, history), the emit's last; zero where a row ends.
        kept: the same of what a mask keeps, or None.
        pairs: what of input and output make the clean latent, of each evaluation; None where that is unknown.
        hold: how an output moves with its input while the clean latent stands still; 0 where that is unknown.

    """

    def __init__(self, ops: Ops) -> None:
        self.evals = [op for op in ops if isinstance(op, Eval)]
        self.at = np.array([index for index, op in enumerate(ops) if isinstance(op, Eval)], np.int64)
        self.drawn = [index for index, op in enumerate(ops) if isinstance(op, Draw | GivenLatent)]
        self.times = np.array([op.t for op in self.evals], np.float32)
        shares = [1.0 if op.guided is None else op.guided for op in self.evals]
        self.guided = np.array(shares, np.float32) if set(shares) - {1.0} else None
        mixing = [op for op in ops if isinstance(op, Eval | Emit)]
        self.rows = _dense([op.row for op in mixing], len(ops) - 1)
        kept = [op.kept for op in mixing if op.kept is not None]
        self.kept = _dense(kept, len(ops) - 1) if kept else None
        # clean = a · input + b · output, where the output has a say.
        found = [op.preview or (0.0, 0.0) for op in self.evals]
        self.pairs = [pair if abs(pair[1]) > _LEAST * max(1.0, abs(pair[0])) else None for pair in found]
        self.hold = np.array([-pair[0] / pair[1] if pair else 0.0 for pair in self.pairs], np.float32)

    def clean(self, index: int, latent: np.ndarray, output: np.ndarray) -> np.ndarray | None:
        """Return the clean latent that an evaluation points to, or None where the table does not say."""
        pair = self.evals[index].preview
        return None if pair is None else np.float32(pair[0]) * latent + np.float32(pair[1]) * output


def _dense(rows: Sequence[tuple[float, ...]], width: int) -> np.ndarray:
    dense = np.zeros((len(rows), width), np.float32)
    with np.errstate(over="ignore"):
        for index, row in enumerate(rows):
            dense[index, : len(row)] = row
    return dense
