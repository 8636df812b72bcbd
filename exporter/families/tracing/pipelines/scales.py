"""Scales of a pipeline's call: those that guide, by the mode of guidance, and further ones that it computes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.open_scale import OpenScale
from exporter.families.tracing.following.origins import STEP, marked
from exporter.families.tracing.pipelines.two_stages import PREFIX

#: Of which a pipeline's own is the first that its call takes; the last where another stage has one too.
_GUIDING = ("true_cfg_scale", "guidance_scale", "decoder_guidance_scale")


def steering(pipeline: Any, mode: str, scale: Any) -> dict[str, Any]:  # noqa: ANN401 - a number or what stands for one
    """Arguments that guide a pipeline. Where two branches have a scale of their own, `guidance_scale` is the network's."""
    takes = dry_run.arguments(pipeline)
    own = next((name for name in _GUIDING if name in takes), "guidance_scale")
    if mode == "embedded":
        return {own: 1.0, "guidance_scale": scale}
    return {own: scale} if mode == "classifier_free" else {own: scale, "guidance_scale": scale}


def other_scales(pipeline: Any) -> dict[str, float]:  # noqa: ANN401 - a pipeline of diffusers
    """Arguments of a pipeline that are scales of its steps beside those of guidance, and their defaults."""
    takes = {name: about.default for name, about in dry_run.arguments(pipeline).items() if name.endswith("_scale")}
    others = {name: value for name, value in takes.items() if name not in _GUIDING and not name.startswith(PREFIX)}
    return {name: value for name, value in others.items() if isinstance(value, float)}


def open_scales(scales: Mapping[str, float]) -> dict[str, OpenScale]:
    """Further scales at their defaults, each on unless it is 0."""
    return {name: OpenScale(marked(torch.tensor([value]), STEP), on=value > 0) for name, value in scales.items()}
