"""What users feed a bundle of a followed pipeline beside prompts: whole numbers, noise of an earlier stage, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engines.inputs import Input
from exporter.families.tracing import whole_numbers
from exporter.families.tracing.pictures import image_arguments
from exporter.families.tracing.pipelines.two_stages import NOISE

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey


def entries(survey: Survey, pictures: Sequence[str], sides: tuple[int | str, ...]) -> dict[str, Input]:
    """Inputs by name: numbers and noise first, then pictures in the order of the pipeline's arguments.

    Args:
        survey: of the pipeline.
        pictures: the inputs that are pictures.
        sides: height and width, as ports have them, of a picture that has no size of its own.

    """
    found = whole_numbers.entries(survey.pipeline)
    if survey.earlier:
        told = f"noise of the first stage of {survey.name}; a seed draws it before all other"
        found[NOISE] = Input(kind="noise", shape=("batch", *survey.earlier), about=told)
    for name in pictures:
        about = survey.prepared.get(name, image_arguments.PLAIN)
        found[name] = Input(
            kind="mask" if about.grey else "image",
            shape=("batch", *(about.sides or sides), 1 if about.grey or about.map else 3),
            preprocessing=about.preprocessing,
            about=f"{survey.pictures[name]} of {survey.name}",
        )
    return found
