"""A verdict: pairs of what was got and what was wanted, held to their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engines.bundle import Verdict
from exporter.parity.metrics import Pair, keeps, measure
from exporter.recipe.limits import STAGES


def judge(
    part: str,
    stage: str,
    case: str,
    pairs: Sequence[Pair],
    limit: Mapping[str, float],
    *,
    backend: str | None = None,
    note: str = "",
) -> Verdict:
    """Hold the worst of several (got, want) pairs to limits; NaN, infinity and a wrong shape fail whatever the limits are."""
    for got, want in pairs:
        if got.shape != want.shape:
            note = f"shape {list(got.shape)} instead of {list(want.shape)}"
        elif bad := [side for side in (got, want) if not np.isfinite(side).all()]:
            whose = "" if bad[0] is got else " that it is held to"
            note = f"{np.count_nonzero(~np.isfinite(bad[0]))} of {bad[0].size} values{whose} are NaN or infinite"
        else:
            continue
        return failed(part, stage, case, limit, note, backend)
    values = measure(pairs, image=stage in {"image", "caching"}, asked=limit)
    return Verdict(
        part=part,
        stage=STAGES[stage],
        case=case,
        backend=backend,
        values=values,
        limit=dict(limit),
        passed=keeps(values, limit),
        note=note,
    )


def failed(part: str, stage: str, case: str, limit: Mapping[str, float], note: str, backend: str | None = None) -> Verdict:
    """What could not be measured."""
    return Verdict(part=part, stage=STAGES[stage], case=case, backend=backend, limit=dict(limit), passed=False, note=note)
