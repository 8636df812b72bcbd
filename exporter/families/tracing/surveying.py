"""In which way a pipeline is surveyed: with pictures or without, and texts with what pads them or without."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from engines.errors import UnsupportedError
from exporter.families.tracing import encodings
from exporter.families.tracing.facts import Survey
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.standins import within
from exporter.families.tracing.pictures import image_arguments, ip_adapters
from exporter.families.tracing.texts import seen_pictures


def surveyed(
    pipeline: Any,  # noqa: ANN401 - as of `Survey`
    *asked: Any,  # noqa: ANN401
    words: Mapping[str, str] | None = None,
    judged: bool = False,
    shown: bool = False,
    lists: Mapping[str, int] | None = None,
) -> Survey:
    """Survey a pipeline, without pictures if it draws without and none are to be `shown`, else with those that its call takes.

    `lists`: arguments of its call that are several pictures, and how many; these are shown.

    Where its network asks how many of a text's ids are its own, texts come without what pads them. Where its step is computed
    from the noise's level, that is followed in the place of its time. Where it draws a
    multiple of the size that its pictures have, they come as small as that asks for.

    Raises:
        UnsupportedError: it can be followed in neither way; of the two the one in which it comes farther is told. Or it takes
            prompts, and has no method that encodes them.

    """
    if "prompt" in dry_run.arguments(pipeline) and not dry_run.encoder_of(pipeline):
        raise encodings.unencoded(pipeline)
    survey = partial(Survey, pipeline, *asked, judged=judged)
    found = _pictured(survey, pipeline, words, shown=shown, lists=lists or {})
    seen_pictures.views(found)  # which refuses others than are built
    if found.fills:
        found.refuse_putting_back()
    known = ({"cut": True} if found.counts else {}) | ({"leveled": True} if found.levels else {})
    return _pictured(partial(survey, **known), pipeline, words, shown=shown, lists=lists or {}) if known else found


def _pictured(
    survey: Any,  # noqa: ANN401
    pipeline: Any,  # noqa: ANN401
    words: Mapping[str, str] | None,
    *,
    shown: bool,
    lists: Mapping[str, int],
) -> Survey:
    if not image_arguments.arguments(pipeline):
        return survey()
    alone: UnsupportedError | None = None
    if not shown and not lists and not ip_adapters.has_adapter(pipeline):
        try:
            return survey()
        except UnsupportedError as error:
            alone = error
    try:
        found = image_arguments.handed(pipeline, partial(survey, words=words), words, lists)
        return (
            image_arguments.handed(pipeline, partial(survey, words=words, enlarges=times), words, lists)
            if (times := _enlarges(found)) > 1
            else found
        )
    except UnsupportedError:
        networks = {name: each for name, each in pipeline.components.items() if isinstance(each, nn.Module)}
        if alone and within(alone.__cause__, networks):  # it asked for no picture before
            raise alone from alone.__cause__
        raise


def _enlarges(survey: Survey) -> int:
    """How many times as large as its pictures is what a pipeline draws, whose call is asked for no size.

    Raises:
        UnsupportedError: no whole number.

    """
    called = survey.called(1)
    if "height" in dry_run.arguments(survey.pipeline) or not survey.pictures:
        return 1
    times = [made / asked for made, asked in zip(survey.image, (called["height"], called["width"]), strict=False)]
    if times[0] != times[1] or not times[0].is_integer() or times[0] < 1:
        sizes = " and ".join(f"{each:g}" for each in times)
        raise UnsupportedError(
            f"{survey.name} draws {sizes} times the height and width of its pictures; a whole number is built."
        )
    return int(times[0])
