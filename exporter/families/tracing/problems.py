"""What a recipe asks of a traced pipeline, and it does not do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engines.plugins import did_you_mean

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey
    from exporter.recipe.schema import Recipe


def problems(survey: Survey, recipe: Recipe, factor: int) -> list[str]:
    """Every way in which a recipe does not fit; `factor` is the pixels per latent cell and side."""
    return [*_of_shapes(survey, recipe, factor), *_of_guidance(survey, recipe), *_of_others(recipe)]


#: Arguments of a call that a build gives itself, and where the recipe says what.
_GIVEN: Mapping[str, str] = {
    **dict.fromkeys(("prompt", "negative_prompt", "strength"), "what a bundle is asked for"),
    "generator": "the seed that a bundle is asked for", "latents": "the seed that a bundle is asked for",
    "height": "shapes.height", "width": "shapes.width", "num_images_per_prompt": "shapes.batch",
    "num_inference_steps": "sampler.steps", "timesteps": "sampler.timesteps", "sigmas": "sampler.sigmas", "eta": "sampler.step",
    "guidance_scale": "sampler.guidance", "true_cfg_scale": "sampler.guidance", "guidance_rescale": "sampler.guidance",
}  # fmt: skip
#: And those that no recipe says: what becomes of the picture, and who looks on.
_NONE = ("output_type", "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs")


def problems_of_call(pipeline: Any, call: Mapping[str, Any]) -> list[str]:  # noqa: ANN401 - of diffusers
    """Every argument that a pipeline's call has not, or that is not the recipe's to give here."""
    from exporter.families.tracing import dry_run, image_arguments, scales  # noqa: PLC0415 - torch

    takes, name = dry_run.arguments(pipeline), type(pipeline).__name__
    inputs = {*image_arguments.arguments(pipeline).values(), *scales.other_scales(pipeline)}
    free = [each for each in takes if each not in {*_GIVEN, *_NONE, *inputs}]
    found = []
    for argument in call:
        if argument in inputs:
            found.append(f"model.call.{argument}: is an input of the bundle; leave it out")
        elif argument in _GIVEN:
            found.append(f"model.call.{argument}: is {_GIVEN[argument]}; leave it out here")
        elif argument not in free:
            told = (
                "is not a recipe's to say" if argument in takes else f"{name} has no such argument{did_you_mean(argument, free)}"
            )
            found.append(f"model.call.{argument}: {told}")
    return found


def _of_shapes(survey: Survey, recipe: Recipe, factor: int) -> Iterator[str]:
    shapes = recipe.shapes
    typical = shapes.height[1], shapes.width[1]
    for number, (axis, lengths) in enumerate((("height", shapes.height), ("width", shapes.width))):
        for length in dict.fromkeys(lengths):
            asked = tuple(length if each == number else typical[each] for each in (0, 1))
            made = survey.sides(*asked)[number] * factor
            if made != length:
                yield f"shapes.{axis}: {length} px, of which {survey.name} makes {made}; write that"


def _of_guidance(survey: Survey, recipe: Recipe) -> Iterator[str]:
    mode, scale = recipe.sampler.guidance.mode, survey.scale
    where = f"sampler.guidance.mode: {mode!r}"
    if mode == "none" and scale.used:
        yield f"{where}, but {survey.name} hands guidance_scale to its network; use embedded"
    elif mode == "classifier_free" and not scale.compared:
        yield f"{where}, but {survey.name} never runs two branches; use embedded or none"
    elif mode != "none" and not scale.used:
        yield f"{where}, but {survey.name} does not use a guidance scale with this model; use none"


def _of_others(recipe: Recipe) -> Iterator[str]:
    prompts, sampler = recipe.prompts, recipe.sampler
    if recipe.pipeline == "fused":
        yield "pipeline: fused pipelines are joined of parts that this model has not; write stepped"
    if prompts.chunks > 1 or prompts.weights or prompts.clip_skip is not None:
        yield "prompts: this model reads them as diffusers has it; leave chunks, weights and clip_skip out"
    steps = {f"guidance.{name}": getattr(sampler.guidance, name) for name in ("interval", "scales")}
    for name, asked in {"cache": sampler.cache, **steps}.items():
        if asked:
            yield f"sampler.{name}: is for Stable Diffusion and SDXL alone; leave it out"
