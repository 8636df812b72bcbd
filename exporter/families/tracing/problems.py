"""What a recipe asks of a traced pipeline, and it does not do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from engines import plugins
from engines.errors import RecipeError
from engines.plugins import did_you_mean
from exporter.recipe.pass_options import REMAKING

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey
    from exporter.recipe.schema import Recipe


def refuse(recipe: Recipe) -> None:
    """Raise RecipeError for what would be asked of the pipeline's call, which takes nothing of the kind."""
    if recipe.sampler.guidance.pag:
        told = "is of Stable Diffusion's and SDXL's own pipelines; leave it out, or take one with PAG in its name"
        raise RecipeError([f"sampler.guidance.pag: {told}, whose pag_scale is an input"])


def problems(survey: Survey, recipe: Recipe, factor: int) -> list[str]:
    """Every way in which a recipe does not fit; `factor` is the pixels per latent cell and side."""
    return [*_of_shapes(survey, recipe, factor), *_of_guidance(survey, recipe), *_of_others(recipe), *_of_noise(survey, recipe)]


def _of_noise(survey: Survey, recipe: Recipe) -> Iterator[str]:
    """Of what fills a mask: a bundle begins with noise alone, in which nothing of the picture may be left."""
    from exporter.families.tracing.following import own_start  # noqa: PLC0415 - torch

    if not survey.fills:
        return
    height, width = recipe.shapes.height[1], recipe.shapes.width[1]
    for steps in recipe.sampler.steps:
        left = own_start.left_under_noise(survey.pipeline.scheduler, steps, survey.times(height, width, steps))
        if left:
            told = f"{survey.name} begins {steps} steps with {left:.2%} of its picture under the noise"
            yield f"sampler: {told}, and a bundle with noise alone; take times or sigmas that begin so, such as sigmas from 1.0"


def _of_shapes(survey: Survey, recipe: Recipe, factor: int) -> Iterator[str]:
    from exporter.families.tracing.steps import neighbours  # noqa: PLC0415 - torch
    from exporter.models import predictor_corrector  # noqa: PLC0415 - torch

    shapes = recipe.shapes
    typical = shapes.height[1], shapes.width[1]
    sizes = [each for each in itertools.product(shapes.height, shapes.width) if each != typical]
    if survey.earlier and any(survey.earlier_at(*size) != survey.earlier for size in dict.fromkeys(sizes)):
        told = f"[{typical[0]}, {typical[0]}, {typical[0]}] and [{typical[1]}, {typical[1]}, {typical[1]}]"
        yield f"shapes: the first stage of {survey.name} draws as many cells as the size asks for; write one size, {told}"
        shapes = shapes.model_copy(update={"height": (typical[0],) * 3, "width": (typical[1],) * 3})  # the others are no bundle's
    for number, (axis, lengths) in enumerate((("height", shapes.height), ("width", shapes.width))):
        for length in dict.fromkeys(lengths):
            asked = tuple(length if each == number else typical[each] for each in (0, 1))
            made = survey.sides(*asked)[number] * factor
            if made != length:
                yield f"shapes.{axis}: {length} px, of which {survey.name} makes {made}; write that"
    if shapes.batch[2] > 1 and survey.lone:
        yield f"shapes.batch: {survey.name} takes one prompt, for one picture; write [1, 1, 1], and they are drawn one by one"
    elif shapes.batch[2] > 1 and predictor_corrector.corrects(survey.pipeline.scheduler):
        told = "corrects pictures by the mean over a batch, so that those drawn together change each other"
        yield f"shapes.batch: the scheduler of {survey.name} {told}; write [1, 1, 1], and they are drawn one by one"
    elif shapes.batch[2] > 1 and neighbours.along_the_batch(survey, *typical):
        told = "attends along the batch, so that pictures drawn together change each other"
        yield f"shapes.batch: a network of {survey.name} {told}; write [1, 1, 1], and they are drawn one by one"


def _of_guidance(survey: Survey, recipe: Recipe) -> Iterator[str]:
    mode, scale = recipe.sampler.guidance.mode, survey.scale
    where = f"sampler.guidance.mode: {mode!r}"
    if mode == "none" and scale.used:
        yield f"{where}, but {survey.name} hands guidance_scale to its network; use embedded"
    elif mode == "classifier_free" and not (scale.compared or survey.always_guided):
        yield f"{where}, but {survey.name} never runs two branches; use embedded or none"
    elif mode != "none" and not scale.used:
        yield f"{where}, but {survey.name} does not use a guidance scale with this model; use none"


def _of_others(recipe: Recipe) -> Iterator[str]:
    prompts, sampler = recipe.prompts, recipe.sampler
    steps = [name for step in recipe.component("unet").passes for name in step] if recipe.model.ip_adapter else []
    if made := [name for name in steps if plugins.load("passes", name).kind in REMAKING]:
        yield f"components.unet.passes: {made[0]} makes another UNet, and an IP-Adapter belongs to one; leave one of both out"
    if recipe.pipeline == "fused":
        yield "pipeline: fused pipelines are joined of parts that this model has not; write stepped"
    if prompts.chunks > 1 or prompts.weights or prompts.clip_skip is not None:
        yield "prompts: this model reads them as diffusers has it; leave chunks, weights and clip_skip out"
    steps = {f"guidance.{name}": getattr(sampler.guidance, name) for name in ("interval", "scales")}
    for name, asked in steps.items():
        if asked:
            yield f"sampler.{name}: is for Stable Diffusion and SDXL alone; leave it out"


def strangers(survey: Survey, recipe: Recipe, roles: Mapping[str, str], encoder: str) -> list[str]:
    """A sentence on every component of the recipe that is none of the pipeline's parts, which `roles` has by name."""
    none = f"diffusers starts {survey.name} from no picture"
    played = {name for names in survey.components.values() for name in names}
    told = {name: f" of its own: it plays within one of {', '.join(roles)}" for name in played} | {encoder: f"; {none}"}
    unknown = (name for name in recipe.components if roles.get(name, "shallow") == "shallow")
    return [f"components.{name}: this model has none{told.get(name, did_you_mean(name, list(roles)))}" for name in unknown]
