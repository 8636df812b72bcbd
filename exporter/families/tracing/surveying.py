"""Survey a pipeline with the pictures that its call takes, or without any."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from engines.errors import UnsupportedError
from exporter.families.tracing import image_arguments
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

    Raises:
        UnsupportedError: it can be followed in neither way; of the two the one in which it comes farther is told.

    """
    if not image_arguments.arguments(pipeline):
        return Survey(pipeline, *asked, judged=judged)
    alone: UnsupportedError | None = None
    if not shown:
        try:
            return Survey(pipeline, *asked, judged=judged)
        except UnsupportedError as error:
            alone = error
    try:
        return image_arguments.handed(pipeline, partial(Survey, pipeline, *asked, words=words, judged=judged), words)
    except UnsupportedError:
        if alone and within(alone.__cause__, pipeline.components):  # it asked for no picture before
            raise alone from alone.__cause__
        raise
