"""In which way a pipeline is surveyed: with pictures or without, and texts with what pads them or without."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from engines.errors import UnsupportedError
from exporter.families.tracing import image_arguments, ip_adapters
from exporter.families.tracing.facts import Survey
from exporter.families.tracing.standins import within


def surveyed(
    pipeline: Any,  # noqa: ANN401 - as of `Survey`
    *asked: Any,  # noqa: ANN401
    words: Mapping[str, str] | None = None,
    judged: bool = False,
    shown: bool = False,
) -> Survey:
    """Survey a pipeline, without pictures if it draws without and none are to be `shown`, else with those that its call takes.

    Where its network asks how many of a text's ids are its own, texts come without what pads them.

    Raises:
        UnsupportedError: it can be followed in neither way; of the two the one in which it comes farther is told.

    """
    survey = partial(Survey, pipeline, *asked, judged=judged)
    found = _pictured(survey, pipeline, words, shown=shown)
    return _pictured(partial(survey, cut=True), pipeline, words, shown=shown) if found.counts else found


def _pictured(survey: Any, pipeline: Any, words: Mapping[str, str] | None, *, shown: bool) -> Survey:  # noqa: ANN401
    if not image_arguments.arguments(pipeline):
        return survey()
    alone: UnsupportedError | None = None
    if not shown and not ip_adapters.has_adapter(pipeline):
        try:
            return survey()
        except UnsupportedError as error:
            alone = error
    try:
        return image_arguments.handed(pipeline, partial(survey, words=words), words)
    except UnsupportedError:
        if alone and within(alone.__cause__, pipeline.components):  # it asked for no picture before
            raise alone from alone.__cause__
        raise
