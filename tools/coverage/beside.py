"""Micro models of pipelines that stand beside diffusers' lists: without text, with class labels, or made to change a picture.

`python -m tools.coverage.beside NAME` builds one, holds what the run time draws without text to diffusers, one picture and two,
guidance on and off, with every part in fp16 once more, and keeps its row.
"""

from __future__ import annotations

import inspect
import itertools
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import diffusers as library
import numpy as np
import torch
import transformers
from diffusers import DiffusionPipeline

from engines.pipeline import Pipeline
from engines.request import Request
from exporter.report import pipelines
from exporter.stages import worker
from tools.coverage import __main__ as coverage
from tools.coverage import (
    bria,
    conditioned,
    dreamlite,
    edits,
    handover,
    joyimage,
    longcat,
    newcomers,
    omnigen,
    pixels,
    prompted,
    readers,
    trial,
    unets,
    untried,
)
from tools.coverage.conditioned import SIZED, unet
from tools.coverage.parts import alive, clip, clip_tokenizer, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def _pixels(**changes: Any) -> Any:  # noqa: ANN401 - of its config, and the network
    """A UNet of pixels, without text."""
    config = {
        "sample_size": 32, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return alive(diffusers.UNet2DModel(**config | changes))


def ddpm() -> DiffusionPipeline:
    """Pixels from noise, and noise in every step."""
    return diffusers.DDPMPipeline(_pixels(), diffusers.DDPMScheduler(clip_sample=False))


def ddim() -> DiffusionPipeline:
    """Pixels from noise alone."""
    return diffusers.DDIMPipeline(_pixels(), diffusers.DDIMScheduler(clip_sample=False))


def score_sde_ve() -> DiffusionPipeline:
    """Pixels by a predictor and a corrector, of a network that gives a score: what it answers is divided by the noise level."""
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_max=1.0)  # more of a random network leaves noise, black or white
    return diffusers.ScoreSdeVePipeline(_pixels(time_embedding_type="fourier"), scheduler)


def consistency() -> DiffusionPipeline:
    """Pixels of a class in one step."""
    network = _pixels(num_class_embeds=10, resnet_time_scale_shift="scale_shift")
    return diffusers.ConsistencyModelPipeline(network, diffusers.CMStochasticIterativeScheduler(clip_denoised=False))


def dit() -> DiffusionPipeline:
    """A transformer of classes."""
    network = diffusers.DiTTransformer2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4, out_channels=8,
        attention_bias=True, num_embeds_ada_norm=1000, norm_type="ada_norm_zero", norm_elementwise_affine=False,
    )  # fmt: skip
    return diffusers.DiTPipeline(alive(network), vae(), diffusers.DDIMScheduler(clip_sample=False))


def upscale() -> DiffusionPipeline:
    """A small picture beside the latent, and how much noise it has as a class."""
    network = unet(in_channels=7, num_class_embeds=1000, only_cross_attention=(False, True))
    noisy = diffusers.DDPMScheduler(beta_schedule="scaled_linear")
    return diffusers.StableDiffusionUpscalePipeline(
        vae(3, scaling_factor=0.08333),
        clip(),
        clip_tokenizer(),
        network,
        noisy,
        diffusers.DDIMScheduler(clip_sample=False),
        max_noise_level=350,
    )


def latent_upscale() -> DiffusionPipeline:
    """A small latent beside the latent, and a step that is computed from the noise's level."""
    crossed = ("KCrossAttnDownBlock2D",) * 3, ("KCrossAttnUpBlock2D",) * 3
    network = diffusers.UNet2DConditionModel(
        act_fn="gelu", attention_head_dim=8, norm_num_groups=None, block_out_channels=(32, 32, 64, 64), time_cond_proj_dim=160,
        conv_in_kernel=1, conv_out_kernel=1, cross_attention_dim=32, in_channels=8, out_channels=5, mid_block_type=None,
        down_block_types=("KDownBlock2D", *crossed[0]), up_block_types=(*crossed[1], "KUpBlock2D"),
        only_cross_attention=False, resnet_time_scale_shift="scale_shift", time_embedding_type="fourier",
        timestep_post_act="gelu", sample_size=32,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type="sample", beta_schedule="scaled_linear")
    return diffusers.StableDiffusionLatentUpscalePipeline(vae(), clip(), clip_tokenizer(), alive(network), scheduler)


def depth_to_image() -> DiffusionPipeline:
    """A picture to start from, and its depth beside the latent."""
    config = transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, readout_type="project",
        reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False,
    )  # fmt: skip
    prepared = transformers.DPTImageProcessorPil(size={"height": 32, "width": 32})
    return diffusers.StableDiffusionDepth2ImgPipeline(
        vae(), clip(), clip_tokenizer(), unet(in_channels=5), diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        alive(transformers.DPTForDepthEstimation(config)), prepared,
    )  # fmt: skip


def refiner() -> DiffusionPipeline:
    """SDXL's refiner: the second text encoder alone, how pretty a picture is as a condition, and a picture to start from."""
    sized = {**SIZED, "cross_attention_dim": 32, "projection_class_embeddings_input_dim": 32 + 5 * 8}
    text = {"text_encoder": None, "tokenizer": None, "text_encoder_2": clip(projection=True), "tokenizer_2": clip_tokenizer("!")}
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        vae(), **text, unet=unet(**sized), scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        requires_aesthetics_score=True, add_watermarker=False,
    )  # fmt: skip


#: What their rows are called together.
TASK = "beside the lists"
#: Classes that are drawn, one a picture, where a pipeline asks for them.
_CLASSES = (3, 7)
_SIDE = 32
#: Those that take texts and pictures, and draw more than one size.
_PICTURED = ("stable-diffusion-x4-upscaler", "stable-diffusion-latent-upscaler")
#: A refiner that goes on where its base has stopped.
_REFINED = "stable-diffusion-xl-base-and-refiner"
#: Whose pictures of one call change each other: diffusers draws each in its own.
_ALONE = ("score-sde-ve",)
#: Those that start from a picture.
_EDITED = ("stable-diffusion-depth2img", "stable-diffusion-xl-refiner")
#: Those that draw from text, as in the lists.
_FROM_TEXT: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "stable-diffusion-controlnets": conditioned.stable_diffusion_controlnets,
    "prx-pixel": pixels.prx_pixel,
    "ernie-image": readers.ernie_image,
    **dreamlite.MADE,
    **longcat.MADE,
    **omnigen.MADE,
    **newcomers.MADE,
    **bria.MADE,
    **joyimage.MADE,
    **untried.MADE,
}
#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "score-sde-ve": score_sde_ve,
    "consistency-model": consistency,
    "dit": dit,
    "stable-diffusion-x4-upscaler": upscale,
    "stable-diffusion-latent-upscaler": latent_upscale,
    "stable-diffusion-depth2img": depth_to_image,
    "stable-diffusion-xl-refiner": refiner,
    _REFINED: refiner,
    **prompted.MADE,
    **_FROM_TEXT,
}
#: Widths of pictures of those that are not of one size.
_WIDTHS = (_SIDE, 48)


def row(name: str) -> dict[str, Any]:
    """How it went, as `trial.row` has it; `pipeline` is its class."""
    made: Any = MADE[name]()
    found = {"pipeline": type(made).__name__}
    if name == _REFINED:
        return handover.row(name, unets.stable_diffusion_xl(), made)
    if name in _FROM_TEXT:
        return {**found, **trial.row(name, made)}
    shown, alone = name in prompted.MADE or name in _PICTURED, name in _ALONE
    widths, steps = (_WIDTHS if shown or name in _EDITED else (_SIDE,)), edits.STEPS if name in _EDITED else 2

    def compare(bundle: Path, mode: str, widths: tuple[int, ...]) -> Iterator[float]:
        if name in _EDITED:
            return edits.compared(made, name, bundle, "image-to-image", mode, _SIDE, widths)
        if shown:
            return trial.compared(made, name, bundle, mode, _SIDE, widths)
        return _compared(made, bundle, mode, alone=alone)

    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(f"{folder}/model")
        model = _adapted(name, made, Path(folder)) if name in prompted.ADAPTED else {}
        of = partial(trial.built, name, Path(folder), _SIDE, batch=1 if alone else 2, steps=steps, model=model)
        measured = trial.measured(widths, of, compare, folder)
        return {**found, **measured, **({"only": "one picture at a time"} if alone and "psnr" in measured else {})}


def _adapted(name: str, source: Any, folder: Path) -> dict[str, Any]:  # noqa: ANN401 - diffusers'
    """Give a pipeline the adapter that belongs to it, and return the fields of a recipe's model that do so."""
    asked = prompted.write_ip_adapter(folder / "adapter", prompted.ADAPTED[name](source.unet))
    source.load_ip_adapter(asked["source"], subfolder=asked["subfolder"], weight_name=asked["weight_name"])
    source.set_ip_adapter_scale(1.0)
    return {"ip_adapter": asked}


def _compared(source: Any, bundle: Path, mode: str, *, alone: bool) -> Iterator[float]:  # noqa: ANN401 - diffusers'
    """PSNR in dB of every setting; `alone`: diffusers draws one picture a call."""
    source.set_progress_bar_config(disable=True)
    takes = inspect.signature(source.__call__).parameters
    with Pipeline.open(bundle, "onnxruntime") as pipeline:
        about = pipeline.bundle.manifest
        for count, scale in itertools.product((1, 2), dict.fromkeys(trial.MODES[mode])):
            classes = list(_CLASSES[:count])
            given: dict[str, Any] = {} if scale is None else {"guidance_scale": scale}
            given |= {"inputs": dict.fromkeys(about.inputs, classes), "negative_prompt": "", "seed": 7, "generator": "torch-cpu"}
            drawn = pipeline.draw(Request.of(about, [""] * count, 1, **given), height=_SIDE, width=_SIDE).images
            asked = {"batch_size": count, "class_labels": classes, "guidance_scale": 1.0 if scale is None else scale}
            asked |= {"num_inference_steps": 2, "output_type": "np"}
            noise = [torch.Generator().manual_seed(7 + index) for index in range(count)]
            asked = {each: asked[each] for each in asked if each in takes}
            if alone:
                wanted = np.concatenate([source(**{**asked, "batch_size": 1}, generator=each).images for each in noise])
            else:
                wanted = source(**asked, generator=noise).images
            if drawn is None or wanted.std() < trial.DEAD:
                raise RuntimeError(f"{type(source).__name__} draws nothing that could be compared")
            yield float(-10 * np.log10(max(float(np.square(drawn - wanted).mean()), 1e-15)))


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Put a row to those that are kept."""
    content = {**pipelines.read()}
    content["rows"] = coverage.listed(content["rows"])
    known = content["rows"].get(TASK, {}) | {name: dict(found)}
    content["rows"][TASK] = {each: known[each] for each in MADE if each in known}
    pipelines.FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(MADE)))
def main(names: tuple[str, ...]) -> None:
    """Print the rows of the names, or of all, as JSON, and keep them."""
    library.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    worker.SMALL = 0  # no second process: several trials may run side by side
    for name in names or MADE:
        found = row(name)
        click.echo(json.dumps({name: found}, ensure_ascii=False))
        keep(name, found)


if __name__ == "__main__":
    main()
