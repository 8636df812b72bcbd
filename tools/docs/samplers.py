"""Samplers and what they belong to: the survey of diffusers' schedulers, and the ways of distilling with their samplers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from engines.backends import installed
from exporter.models.sampler_compat import Pairing, pairings
from exporter.recipe import aliases
from exporter.schedulers.convergence import STEPS, surveyed
from exporter.schedulers.trace import TOLERANCE
from tools.docs.blocks import table


def conditions() -> str:
    """What the survey was made with, and what its columns say."""
    return f"""\
Here: diffusers {installed("compile", "diffusers")}, each scheduler at its defaults but with clipping and thresholding off.

- **order**: measured, as the slope of log error over log steps between {STEPS[0]} and {STEPS[-1]} steps on normally
  distributed data, whose best denoiser and exact path are known. Errors are taken at the model's inputs, where there is still
  noise. A dash where there is none to measure: the sampler draws noise, leads from images to noise, or does not say what its
  model's output means.
- **evaluations**: of the model per step. This and the columns that follow are of eight steps.
- **noise**: whether it draws noise on the way.
- **largest**: the largest coefficient of the table, by which a rounding error may grow.
- **deviation**: of the table from the scheduler in the proof, as a share of the terms summed; beyond {TOLERANCE:.0e} a
  scheduler is refused.
"""


def compiled() -> str:
    """Every scheduler that is a table, and how good a table."""
    rows = []
    for row, order in surveyed():
        if not row.reason:
            measured = "–" if order is None else f"{order:.1f}"
            noise = "drawn" if row.stochastic else ""
            rows.append([row.scheduler, measured, f"{row.evaluations:.3g}", noise, f"{row.largest:.3g}", f"{row.deviation:.0e}"])
    return table(["scheduler", "order", "evaluations", "noise", "largest", "deviation"], rows)


def refused() -> str:
    """Every scheduler that is none, and why."""
    return "".join(f"- {row.scheduler}: {row.reason}\n" for row, _ in surveyed() if row.reason)


def kinds() -> str:
    """One row for each way of distilling: the sampler that belongs to it."""
    rows = []
    for kind, pairing in pairings().items():
        schedulers = ", ".join(pairing.schedulers or ["any"])
        rows.append([f"`{kind}`", pairing.about, schedulers, pairing.spacing or "any", _guidance(pairing), _steps(pairing)])
    return table(["`made_for`", "what it is", "schedulers", "spacing", "guidance", "steps"], rows)


def examples() -> str:
    """One section for each way of distilling: how such a model is recognised, the sampler to write, and where that was read."""
    sections = []
    for kind, pairing in pairings().items():
        sources = "\n".join(f"- {source}" for source in pairing.sources)
        example = f"```yaml\nsampler: {{{pairing.write.partition(' (')[0]}}}\n```"
        sections.append(f"### {kind}\n\n{_known(pairing)}\n\n{example}\n\nSources:\n{sources}\n")
    return "\n".join(sections)


def _known(pairing: Pairing) -> str:
    names = ", ".join(f"`{name}`" for name in (*pairing.hub, *pairing.architectures))
    told = [f"By name: {names}."] if names else []
    told += [f"By a name that matches `{pairing.names}`."] if pairing.names else []
    return " ".join(told) or "No name tells: the pass that made it does, or `model.made_for` in the recipe."


def _guidance(pairing: Pairing) -> str:
    guidance = pairing.guidance
    if guidance.mode == "none" and guidance.most == 1:
        return "none"
    return guidance.mode if guidance.most is None else f"{guidance.mode}, or a scale of at most {guidance.most:g}"


def _steps(pairing: Pairing) -> str:
    if pairing.steps is None:
        return "any"
    least, most = pairing.steps.least, pairing.steps.most
    return f"{least} to {most}" if most > least else f"{least}, no other"


def aliased() -> str:
    """Names that people know for solvers."""
    return table(
        ["solver", "scheduler", "config"], [[_names(names), kind, _config(config)] for names, kind, config in aliases.rows()]
    )


def spaced() -> str:
    """Names that people know for how a solver's steps are spaced."""
    return table(["spacing", "config"], [[_names(names), _config(config)] for names, config in aliases.spacings()])


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _config(config: Mapping[str, object]) -> str:
    return f"`{', '.join(f'{key}: {json.dumps(value)}' for key, value in config.items())}`".replace('"', "") if config else ""
