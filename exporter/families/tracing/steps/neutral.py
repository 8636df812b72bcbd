"""The guidance scale at which a pipeline's own formula gives what the prompt's branch gives alone."""

from __future__ import annotations

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
    """What is handed to the formula where guidance is off, by a network whose branches answer 0 and 1.

    Most pipelines leave guidance out at the scale at which it does nothing. Kandinsky 3 leaves it out at 1 and less, and adds 1
    to the scale. Of a network that is not called once for two branches it is taken to be as with most.
    """
    name = survey.components["denoiser"][-1]
    answer = pytree.tree_map_only(Absent, _two, survey.returned.get(name, Absent()))
    found = (value for value in (survey.off, 0.0) if _answers(survey, name, answer, value) in ({0.0}, {1.0}))
    return next(found, survey.off)


def _two(absent: Absent) -> Any:  # noqa: ANN401 - what stands for a tensor, or one
    """Zeros and ones in the place of two branches."""
    shape = Absent.lengths(absent)
    return torch.stack([torch.zeros(shape[1:]), torch.ones(shape[1:])]) if shape[:1] == (2,) else absent


def _answers(survey: Survey, name: str, answer: Any, value: float) -> set[float]:  # noqa: ANN401
    """The numbers in what the scheduler is handed of it, guided by that scale."""
    play = Play(survey.pipeline, torch.zeros, torch.full((1,), 500.0))
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
