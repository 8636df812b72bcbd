"""Whether a pipeline's first stage draws as much as the picture's size asks for, so that a bundle of it holds one size."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from exporter.families.tracing.following.dry_run import Play
from exporter.families.tracing.following.standins import Stepped, outlined
from exporter.families.tracing.pipelines import two_stages
from exporter.families.tracing.texts import text_processors
from exporter.families.tracing.texts.readings import AskedTokens

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey


def differ(survey: Survey, height: int, width: int) -> bool:
    """Whether the first stage draws noise of another shape for that size than for the surveyed one; no pipeline without one."""
    if not survey.earlier:
        return False
    play, first = Play(survey.pipeline, torch.zeros, torch.zeros(1)), two_stages.answered(None)
    real = text_processors.of(survey.pipeline)

    def answering(name: str) -> Any:  # noqa: ANN401
        return lambda texts, options: AskedTokens(dict(text_processors.tokenized(real[name], texts, options)), set())

    play.place(**first, **{name: text_processors.answering(each, answering(name)) for name, each in real.items()})
    play.prepares = True
    with outlined(), contextlib.suppress(Stepped):
        play(**{**survey.called(1), "height": height, "width": width})
    (noise,) = first.values()
    return noise.of_a_picture(survey.name) != survey.earlier
