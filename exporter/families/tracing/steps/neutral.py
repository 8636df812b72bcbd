"""The guidance scale at which a pipeline's own formula gives what the prompt's branch gives alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.dry_run import Play
from exporter.families.tracing.following.open_scale import OpenScale
from exporter.families.tracing.following.standins import Absent, Stepped, idle, outlined
from exporter.families.tracing.pictures import image_arguments
from exporter.families.tracing.pipelines.scales import steering

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey


def scale(survey: Survey) -> float:
    """What is handed to the formula where guidance is off: a scale at which one branch of two counts, and the other does not.

    Most pipelines leave guidance out at the scale at which it does nothing. Kandinsky 3 leaves it out at 1 and less, and adds 1
    to the scale. Of a network that is not called once for two branches it is taken to be as with most.
    """
    return next((value for value in (survey.off, 0.0) if _is_of_one(survey, value)), survey.off)


def _is_of_one(survey: Survey, value: float) -> bool:
    """Whether that scale gives of branches that answer 0 and 1 what it gives where both answer the same, one of these."""
    apart = _answers(survey, value, (0.0, 1.0))
    return bool(apart) and any(apart == _answers(survey, value, (same, same)) for same in (1.0, 0.0))


def _two(absent: Absent, branches: tuple[float, float]) -> Any:  # noqa: ANN401 - what stands for a tensor, or one
    """What branches answer, each one number throughout, in the place of two."""
    shape = Absent.lengths(absent)
    return torch.stack([torch.full(shape[1:], each) for each in branches]) if shape[:1] == (2,) else absent


def _answers(survey: Survey, value: float, branches: tuple[float, float]) -> set[float]:
    """The numbers in what the scheduler is handed of these, guided by that scale; none where it is of no such network."""
    name = survey.components["denoiser"][-1]
    answer = pytree.tree_map_only(Absent, partial(_two, branches=branches), survey.returned.get(name, Absent()))
    play = Play(survey.pipeline, torch.zeros, torch.full((1,), 500.0), leveled=survey.leveled)
    play.encode_by(dry_run.replayed([each.found for each in survey.encodings]))
    taking = image_arguments.taking(survey.pipeline, survey.prepared) if survey.pictures else {}
    play.place(**{**taking, **survey.unasked(survey.pipeline), name: idle(getattr(survey.pipeline, name), answer)})
    guided = steering(survey.pipeline, survey.mode, OpenScale(torch.tensor([value]), on=True))
    try:
        with outlined():
            play(**{**survey.called(1), **guided})
    except Stepped as event:
        output: Any = event.output
        return set(output.flatten().tolist()) if isinstance(output, Tensor) and not output.is_meta else set()
    return set()
