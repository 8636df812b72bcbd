"""Pipelines of diffusers that play the same networks: from text, from a picture, and within a mask."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import transformers

from engines.manifest import StartsFrom
from exporter.families.tracing.following import dry_run, own_start
from exporter.families.tracing.pictures import image_arguments, ip_adapters
from exporter.families.tracing.pipelines import two_stages

#: A share of the schedule: who takes it starts from the picture, others are conditioned on it.
_STRENGTH = "strength"
#: Networks of a step, and what a VAE's config calls the channels of its latent.
_DENOISERS, _CHANNELS = ("transformer", "unet"), ("latent_channels", "z_dim")


@cache
def _lists() -> tuple[Mapping[str, type], Mapping[StartsFrom, Mapping[str, type]]]:
    """Diffusers' lists: who draws from text; and by what a pipeline is given to start from, those that do."""
    # Pipelines name image processors that this model has not, and transformers warns that they lack torchvision.
    transformers.logging.set_verbosity_error()
    from diffusers.pipelines import auto_pipeline  # noqa: PLC0415 - after that

    lists: Any = auto_pipeline  # typed by every name in them
    edits: dict[StartsFrom, Mapping[str, type]] = {
        "image": lists.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING, "mask": lists.AUTO_INPAINT_PIPELINES_MAPPING,
    }  # fmt: skip
    return lists.AUTO_TEXT2IMAGE_PIPELINES_MAPPING, edits


def starting(kind: type) -> dict[StartsFrom, type]:
    """The pipelines that start from an `image`, and within a `mask`, of one that draws from text."""
    plain, edits = _lists()
    own_kind = two_stages.whole(ip_adapters.plain(kind))
    names = [name for name, own in plain.items() if own is own_kind]
    if own_start.alone(kind):
        return {"image": kind}
    found: dict[StartsFrom, type] = {given: known[name] for given, known in edits.items() for name in names if name in known}
    return {given: ip_adapters.like(kind, own) for given, own in found.items() if _starts(own)}


def from_text(kind: type, configs: Mapping[str, Mapping[str, Any]]) -> type:
    """The pipeline that draws from text with the networks of `kind`, where that starts from a picture; else `kind` itself.

    A network of inpainting, which has further channels for mask and picture, is conditioned on them at every step instead.
    """
    refines = configs.get("model_index", {}).get("requires_aesthetics_score")  # what only SDXL's refiner is told
    if not _starts(kind) or _has_further_channels(configs) or refines:
        return kind
    plain, edits = _lists()
    names = (name for known in edits.values() for name, own in known.items() if own is kind)
    return next((plain[name] for name in names if name in plain), kind)


def _starts(kind: type) -> bool:
    return _STRENGTH in dry_run.arguments(kind)


def _has_further_channels(configs: Mapping[str, Mapping[str, Any]]) -> bool:
    vae = configs.get("vae", {})
    latent = next((vae[name] for name in _CHANNELS if name in vae), 0)
    taken = [configs[name].get("in_channels", latent) for name in _DENOISERS if name in configs]
    return bool(latent) and any(channels % latent for channels in taken)  # a packed latent's are multiples


def words(kind: type) -> dict[str, str] | None:
    """Names of the pictures that are conditions of one that draws from text, beside one to start from → its arguments.

    None where nothing starts from a picture.
    """
    found = starting(kind)
    return {other: own for own, other in conditions(kind, next(iter(found.values()))).items()} if found else None


def over(kind: Any, pipeline: Any) -> Any:  # noqa: ANN401 - a class of diffusers' pipelines, and one
    """A pipeline of that class over the components of another, none of which is changed."""
    known = {**dict(pipeline.config), **pipeline.components, "scheduler": copy.deepcopy(pipeline.scheduler)}
    takes = inspect.signature(kind.__init__).parameters
    found = kind(**{name: known[name] for name in takes if name in known and name != "self"})
    # Set afterwards: the constructor would rewrite fields of the scheduler's config that it deems outdated.
    found.scheduler = pipeline.scheduler
    found.set_progress_bar_config(disable=True)
    return two_stages.staged(found)


def conditions(kind: type, sibling: type) -> dict[str, str]:
    """Pictures that both take at every step: the argument of `kind` → that of `sibling`, which starts from a picture.

    Where both call an argument `image`, the one is a condition and the other what is started from.
    """
    own, others = image_arguments.arguments(kind), image_arguments.arguments(sibling)
    free = [argument for name, argument in others.items() if name not in ("image", "mask")]
    named = {argument: argument for argument in own.values() if argument in free}
    left = [argument for argument in free if argument not in named]
    return named | dict(zip((argument for argument in own.values() if argument not in named), left, strict=False))
