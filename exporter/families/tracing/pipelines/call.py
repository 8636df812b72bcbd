"""Arguments of a pipeline's call that a recipe hands on (`model.call`), and which of them are not its to give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.plugins import did_you_mean
from exporter.families.tracing.following import dry_run, rewriting
from exporter.families.tracing.pictures import image_arguments
from exporter.families.tracing.pipelines import scales

#: Arguments of a call that a build gives itself, and where the recipe says what.
_GIVEN: Mapping[str, str] = {
    **dict.fromkeys(("prompt", "negative_prompt", "strength"), "what a bundle is asked for"),
    "generator": "the seed that a bundle is asked for", "latents": "the seed that a bundle is asked for",
    "height": "shapes.height", "width": "shapes.width", "num_images_per_prompt": "shapes.batch",
    "num_inference_steps": "sampler.steps", "timesteps": "sampler.timesteps", "sigmas": "sampler.sigmas", "eta": "sampler.step",
    "guidance_scale": "sampler.guidance", "true_cfg_scale": "sampler.guidance", "guidance_rescale": "sampler.guidance",
    **dict.fromkeys(rewriting.SWITCHES, "off in a bundle, which draws the prompt that it is given"),
    "decoder_guidance_scale": "sampler.guidance", "decoder_timesteps": "sampler.timesteps",
}  # fmt: skip
#: And those that no recipe says: what becomes of the picture, and who looks on.
_NONE = ("output_type", "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs")


def as_taken(pipeline: Any, call: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - of diffusers, or its class
    """The arguments, with tuples for the lists of YAML where the call says that it takes tuples."""
    takes = {name: str(about.annotation) for name, about in dry_run.arguments(pipeline).items()}

    def taken(value: Any, kind: str) -> Any:  # noqa: ANN401
        return tuple(value) if isinstance(value, list) and "tuple[" in kind and "list[" not in kind else value

    return {name: taken(value, takes.get(name, "")) for name, value in call.items()}


def picture_problems(pipeline: Any, pictures: Mapping[str, int]) -> list[str]:  # noqa: ANN401 - of diffusers
    """Every argument that is said to be a list of pictures and is none of a pipeline's that are pictures."""
    known = [each for each in image_arguments.arguments(pipeline).values() if each != image_arguments.SHARED]
    told = f"is no picture that {type(pipeline).__name__} takes"
    return [f"model.pictures.{name}: {told}{did_you_mean(name, known)}" for name in pictures if name not in known]


def problems(pipeline: Any, call: Mapping[str, Any]) -> list[str]:  # noqa: ANN401
    """Every argument that a pipeline's call has not, or that is not the recipe's to give here."""
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
