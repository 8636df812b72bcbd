"""What of a pipeline a bundle leaves out, a sentence each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engines.errors import UnsupportedError
from exporter.families.tracing.following.own_texts import Zeros

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey


def components(survey: Survey, index: Mapping[str, Any], used: Collection[str]) -> Iterator[str]:
    """Those that the model's index names, and no part uses."""
    used = {*used, *(name for names in survey.rewriting.values() for name in names)}
    for name, entry in index.items():
        if isinstance(entry, list) and entry[-1] is not None and name not in used:
            yield f"left out: {name}, which {survey.name} does not run for a picture from text"


def abilities(survey: Survey) -> Iterator[str]:
    """What the pipeline does by itself, and a bundle of it does not."""
    for switch in survey.rewriting:
        told = "by which a language model writes prompts anew; a bundle draws the prompt that it is given"
        yield f"left out: {switch} of {survey.name}, {told}"
    for name, most in survey.cut_at.items():
        yield f"left out: of a text what is behind its first {most} ids, which {survey.name} reads ({name})"
    if survey.unseeded:
        yield f"left out: noise that no seed reaches, which {survey.name} adds to the pictures that it encodes"
    if survey.fills:
        yield f"left out: strengths below 1 of {survey.name}, at which it starts from its picture; a bundle starts from noise"
    if survey.rewrites:
        yield f"left out: what {survey.name} mends in prompts by code, such as HTML's entities"
    if any(isinstance(leaf, Zeros) for each in survey.conditioning for leaf in each):
        told = "such as words within quotes; of others it fills in zeros, and a bundle always does"
        yield f"left out: what {survey.name} reads of some texts alone, {told}"
    for reading in (each for each in survey.readings.values() if each.pads):
        most, told = reading.most, "since what pads a shorter one is kept there"
        yield f"left out: of a text of more than {most} ids one more than {survey.name} leaves out, {told}"
    if isinstance(error := survey.unguided, UnsupportedError):
        yield f"guidance is never off: without it {' '.join(str(error).split())}"
