"""What goes into each part of a pipeline that is followed, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from engines.guidance import Guidance
from engines.inputs import Input
from engines.manifest import Role, StartsFrom
from engines.signature import Port, Range, Signature
from exporter.families.tracing import inputs
from exporter.families.tracing.following.dry_run import Leaf, arguments
from exporter.families.tracing.pictures import image_arguments
from exporter.families.tracing.texts import seen_pictures

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey
    from exporter.families.tracing.starts import Start
    from exporter.families.tracing.steps.blocks import Blocks
    from exporter.families.tracing.steps.crossings import Conditions
    from exporter.recipe.schema import Recipe

_SIDES = ("latent_height", "latent_width")


class SignedFamily(Protocol):
    """What signatures are made of."""

    survey: Survey
    recipe: Recipe
    roles: Mapping[str, Role]

    @property
    def starts(self) -> Mapping[StartsFrom, Start]:
        """How pipelines start from pictures."""
        ...

    @property
    def conditions(self) -> Conditions:
        """What of a step is made of pictures alone."""
        ...

    @property
    def inputs(self) -> Mapping[str, Input]:
        """What users feed."""
        ...

    @property
    def guidance(self) -> Guidance:
        """With every scale."""
        ...

    @property
    def blocks(self) -> Blocks:
        """Where the network is cut for step caching."""
        ...

    @property
    def factor(self) -> int:
        """Pixels per latent cell and side."""
        ...

    def cells(self, lengths: Sequence[int]) -> int:
        """Cells from one size of a side, between these lengths in pixels, to the next."""
        ...


def signature(family: SignedFamily, name: str) -> Signature:
    """Of one part, at the recipe's shapes."""
    role, survey, conditions = family.roles[name], family.survey, family.conditions
    latent = Port(name="latent", shape=("batch", survey.latent[0], *_SIDES))
    if role == "text":
        ids = [
            Port(name=f"{each}_{what}", dtype="int64", shape=("batch", *reading.shape(each, survey.branches)))
            for each, reading in survey.readings.items()
            for what in (("ids", "mask") if reading.masked else ("ids",))
        ]
        return _signed(family, [*ids, *_fed(family, "text")], _conditioning(family), alone=True)
    made = [Port(name=crossing.name, shape=crossing.port_shape) for crossing in conditions.crossings]
    if role == "condition":
        channels = conditions.channels(survey)
        noise = [Port(name="noise", shape=("batch", channels, *_SIDES))] if channels else []
        return _signed(family, [*_fed(family, "condition"), *noise], made, alone=_one_by_one(family) or bool(survey.shared))
    if role in {"denoiser", "shallow"}:
        scales = [Port(name=scale.name, shape=("batch",)) for scale in family.guidance.scales]
        labels = _fed(family, "denoiser")
        taken = [latent, Port(name="timestep", shape=("batch",)), *labels, *_conditioning(family), *made, *scales]
        deep = [family.blocks.port] if family.recipe.sampler.cache else []
        answer = Port(name="model_output", shape=latent.shape)
        taken, left = ([*taken, *deep], [answer]) if role == "shallow" else (taken, [answer, *deep])
        return _signed(family, taken, left, alone=_one_by_one(family))
    image = Port(name="image", shape=("batch", *pixels(family.factor), survey.image[2]))
    if role == "encoder":
        drawn = next(iter(family.starts.values())).drawn[1] is not None
        noise = [Port(name="noise", shape=latent.shape)] if drawn else []
        return _signed(family, [image, *noise], [latent], alone=True)
    return _signed(family, [latent], [image], alone=True)


def pixels(factor: int) -> tuple[str, ...]:
    """The sides of a picture with so many pixels per latent cell, as dimensions."""
    return tuple(f"{factor}*{side}" if factor > 1 else side for side in _SIDES)


def _fed(family: SignedFamily, role: Role) -> list[Port]:
    """What users feed of what a role takes."""
    conditions = family.conditions
    seen = [port for port, _ in seen_pictures.ports(family.survey).values()]
    return inputs.ports(family.inputs, role, {*conditions.pictures, *conditions.fed}, seen)


def _conditioning(family: SignedFamily) -> list[Port]:
    return [
        Port(name=leaf.name, dtype="float32" if leaf.dtype.is_floating_point else "int64", shape=("batch", *leaf.port_shape))
        for leaves in family.survey.conditioning
        for leaf in leaves
        if isinstance(leaf, Leaf)
    ]


def _one_by_one(family: SignedFamily) -> bool:
    """Whether the pipeline wants to know in Python how many pictures there are."""
    survey = family.survey
    lists = any(leaf.rows for leaves in survey.conditioning for leaf in leaves if isinstance(leaf, Leaf))
    if image_arguments.counted(survey.pipeline) and not survey.piles:
        return False
    return lists or survey.cut or not {"prompt_embeds", "batch_size"} & arguments(survey.pipeline).keys()


def _signed(family: SignedFamily, taken: Sequence[Port], left: Sequence[Port], *, alone: bool) -> Signature:
    """With every dimension that is used; `alone` is what takes one picture at a time."""
    shapes = family.recipe.shapes
    used = {str(dim).rpartition("*")[2] for port in (*taken, *left) for dim in port.shape}
    batch = Range(**dict(zip(("min", "typical", "max"), (1, 1, 1) if alone else shapes.batch, strict=True)))
    dims = {"batch": batch}
    for side, triple in zip(_SIDES, (shapes.height, shapes.width), strict=True):
        cells = [length // family.factor for length in triple]
        dims[side] = Range(**dict(zip(("min", "typical", "max"), cells, strict=True)), multiple=family.cells(triple))
    dims |= family.survey.open
    return Signature(inputs=tuple(taken), outputs=tuple(left), dims={each: dims[each] for each in dims if each in used})
