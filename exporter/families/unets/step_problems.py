"""What a recipe asks of a UNet at its steps, guidance and caching, and the model cannot give. Reads configs without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from exporter.families.unets import depths, self_attentions
from exporter.models.sampler_compat import made_by_passes

if TYPE_CHECKING:
    from exporter.recipe.schema import Recipe


def problems(recipe: Recipe, config: Mapping[str, Any], pipeline_class: str, *, rescales_from_images: bool) -> list[str]:
    """What does not fit a UNet of that config, played by that class of diffusers' pipelines."""
    sampler, takes = recipe.sampler, config.get("time_cond_proj_dim") is not None
    mode, rescale = sampler.guidance.mode, sampler.guidance.rescale
    where = f"sampler.guidance.mode: {mode!r}"
    taught = made_by_passes(recipe)  # a network that shall take it is not there yet
    if mode == "embedded" and not takes and (taught is None or taught.kind != "lcm"):
        return [f"{where}, but this model has no input for it (unet.time_cond_proj_dim is null); use classifier_free or none"]
    if mode == "classifier_free" and takes:
        return [f"{where}, but guidance is an input of this model (unet.time_cond_proj_dim is set); use embedded"]
    found = []
    if sampler.cache and (told := depths.problem(config, sampler.cache.depth)):
        found.append(f"sampler.cache.depth: {told}")
    if (pag := sampler.guidance.pag) and (told := self_attentions.problem(config, pag.layers)):
        found.append(f"sampler.guidance.pag.layers: {told}")
    if rescale and "vae_encoder" in recipe.components and not rescales_from_images:
        other = pipeline_class.replace("Pipeline", "Img2ImgPipeline")
        told = f"{rescale}, but diffusers' {other} has none to check it against; leave it out, or leave vae_encoder out"
        found.append(f"sampler.guidance.rescale: {told} of the components")
    return found
