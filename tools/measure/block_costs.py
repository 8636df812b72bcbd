"""Multiply-adds of transformers whole and cut for step caching, at full size, counted without their weights.

    python -m tools.measure.block_costs flux sd3.5-medium pixart-sigma

The transformer is a skeleton of the published config; the networks beside it, which are not counted, are micro ones of the widths
and of the scale that it takes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import diffusers as library
import torch

from exporter.families import claim
from exporter.models.resolve import resolve
from exporter.recipe.schema import Recipe
from exporter.reference.cost import count
from tools.coverage.parts import clip, clip_tokenizer, flow, t5, t5_tokenizer, vae
from tools.coverage.pipelines import SHIFTED

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
_RECIPE = """
model: {source: %s, weights: random}
sampler: {steps: [28], guidance: %s, cache: {every: 3, depth: %d}}
shapes: {height: [1024, 1024, 1024], width: [1024, 1024, 1024], batch: [1, 1, 1]}
checks: {prompts: [A red circle], skip: counted alone}
"""
_GUIDED = "{mode: classifier_free, scale: 4.0}"


def _flux() -> Any:  # noqa: ANN401 - a pipeline
    """FLUX.1-dev, whose config is the class's own but for guidance."""
    with torch.device("meta"):
        network = diffusers.FluxTransformer2DModel(guidance_embeds=True)
    return diffusers.FluxPipeline(
        scheduler=flow(use_dynamic_shifting=True), vae=vae(4, latent_channels=16, **SHIFTED), transformer=network,
        text_encoder=clip(768), tokenizer=clip_tokenizer(), text_encoder_2=t5(4096), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


def _sd35_medium() -> Any:  # noqa: ANN401
    """Stable Diffusion 3.5 medium."""
    with torch.device("meta"):
        network = diffusers.SD3Transformer2DModel(
            sample_size=128, patch_size=2, in_channels=16, num_layers=24, attention_head_dim=64, num_attention_heads=24,
            joint_attention_dim=4096, caption_projection_dim=1536, pooled_projection_dim=2048, out_channels=16,
            pos_embed_max_size=384, dual_attention_layers=tuple(range(13)), qk_norm="rms_norm",
        )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=network, scheduler=flow(), vae=vae(4, latent_channels=16, **SHIFTED),
        text_encoder=clip(768, projection=True), tokenizer=clip_tokenizer(),
        text_encoder_2=clip(1280, projection=True), tokenizer_2=clip_tokenizer("!"),
        text_encoder_3=t5(4096), tokenizer_3=t5_tokenizer(),
    )  # fmt: skip


def _pixart_sigma() -> Any:  # noqa: ANN401
    """PixArt-Σ XL 2 of 1024 pixels."""
    with torch.device("meta"):
        network = diffusers.PixArtTransformer2DModel(
            sample_size=128, num_layers=28, patch_size=2, attention_head_dim=72, num_attention_heads=16, caption_channels=4096,
            in_channels=4, cross_attention_dim=1152, out_channels=8, use_additional_conditions=False, interpolation_scale=2,
        )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(algorithm_type="dpmsolver++")
    return diffusers.PixArtSigmaPipeline(t5_tokenizer(), t5(4096), vae(4), network, scheduler)


#: Name → what makes the pipeline, its guidance, and how many branches a call has.
MODELS: Mapping[str, tuple[Callable[[], Any], str, int]] = {
    "flux": (_flux, "{mode: embedded, scale: 3.5}", 1),
    "sd3.5-medium": (_sd35_medium, _GUIDED, 2),
    "pixart-sigma": (_pixart_sigma, _GUIDED, 2),
}


def saved(name: str, folder: Path) -> None:
    """A model's folder, without its transformer's weights."""
    pipeline = MODELS[name][0]()
    network = pipeline.transformer
    pipeline.register_modules(transformer=None)
    pipeline.save_pretrained(folder)
    network.save_config(folder / "transformer")
    index = folder / "model_index.json"
    content = json.loads(index.read_text(encoding="utf-8")) | {"transformer": ["diffusers", type(network).__name__]}
    index.write_text(json.dumps(content), encoding="utf-8")


def costs(name: str, depth: int) -> tuple[float, float]:
    """Multiply-adds of a whole call and of a shallow one, per branch of guidance."""
    _, guidance, branches = MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        saved(name, Path(folder))
        recipe = Recipe.parse(_RECIPE % (folder, guidance, depth), name)
        family = claim(resolve(recipe.model, Path()), recipe)
        parts = count(family, ["transformer", "transformer_shallow"])
    whole, cut = (parts[part].multiply_adds / branches for part in ("transformer", "transformer_shallow"))
    return whole, cut


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(MODELS)))
def main(names: tuple[str, ...]) -> None:
    """Print the rows of a table for the models that are named, or all."""
    for name in names or MODELS:
        (whole, cut), (_, more) = costs(name, 0), costs(name, 1)
        fewer = {(every, each): every * whole / (whole + (every - 1) * each) for every in (3, 5) for each in (cut, more)}
        told = f"{fewer[3, cut]:.2f} | {fewer[5, cut]:.2f} | {fewer[3, more]:.2f}"
        print(f"| {name} | {whole / 1e9:,.0f} G | {cut / 1e9:,.0f} G | {told} |", flush=True)


if __name__ == "__main__":
    main()
