"""What users feed a bundle of a followed pipeline beside prompts: whole numbers, noise of an earlier stage, and pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from engines.inputs import Input, View, taken
from exporter.families.tracing import whole_numbers
from exporter.families.tracing.pictures import image_arguments, own_noise
from exporter.families.tracing.pipelines.two_stages import NOISE

if TYPE_CHECKING:
    from engines.signature import Port
    from engines.wiring import Role
    from exporter.families.tracing.facts import Survey


def entries(survey: Survey, pictures: Collection[str], sides: tuple[int | str, ...]) -> dict[str, Input]:
    """Inputs by name: numbers and noise first, then pictures in the order of the pipeline's arguments.

    Args:
        survey: of the pipeline.
        pictures: the inputs that are pictures, beside those that the text encoder sees.
        sides: height and width, as ports have them, of a picture that has no size of its own.

    """
    found = whole_numbers.entries(survey.pipeline)
    if survey.earlier:
        told = f"noise of the first stage of {survey.name}; a seed draws it before all other"
        found[NOISE] = Input(kind="noise", shape=("batch", *survey.earlier), about=told)
    if survey.owned:
        told = f"noise for the pictures of {survey.name}; a seed draws it before the latent's"
        found[own_noise.NOISE] = Input(kind="noise", shape=("batch", *survey.owned), about=told)
    for name in (name for name in survey.pictures if name in {*pictures, *survey.seen}):
        about = survey.prepared.get(name, image_arguments.PLAIN)
        found[name] = Input(
            kind="mask" if about.grey else "image",
            shape=("batch", *(about.sides or sides), 1 if about.grey or about.map else 3),
            preprocessing=about.preprocessing,
            views={
                port: View(shape=("batch", *(view.sides or sides), 3), preprocessing=view.preprocessing)
                for port, view in survey.views.get(name, {}).items()
            },
            about=f"{survey.pictures[name]} of {survey.name}",
        )
    return found


def ports(entries: Mapping[str, Input], role: Role, made_once: Collection[str], seen: Collection[str] = ()) -> list[Port]:
    """What of them a part takes, in order.

    Pictures, numbers and noise of which what steps take is `made_once` are the condition part's, and those that are `seen` by
    the text encoder, of which a picture's views are, the text part's, or both.
    """

    def takers(name: str, entry: Input) -> set[Role]:
        own: set[Role] = {"condition"} if name in made_once else set()
        own |= {"text"} if name in seen else set()
        return own or {"text" if entry.kind == "noise" else "denoiser"}

    return [entry.port(name) for name, entry in taken(entries).items() if role in takers(name, entry)]
