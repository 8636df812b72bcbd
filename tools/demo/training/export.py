"""Stage ``export``: the trained parts as a diffusers pipeline folder."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel

from tools.demo.training import text, unet, vae, words


def assemble(
    autoencoder: AutoencoderKL,
    encoders: text.Encoders,
    denoiser: UNet2DConditionModel,
    scaling: float,
) -> StableDiffusionXLPipeline:
    """Puts the parts together in float32.

    Args:
        autoencoder: The trained autoencoder.
        encoders: Tokenizers and text encoders.
        denoiser: The trained (averaged) denoiser.
        scaling: Factor from the autoencoder's latents to unit variance.

    """
    autoencoder.register_to_config(scaling_factor=scaling)
    pipeline = StableDiffusionXLPipeline(
        vae=autoencoder,
        text_encoder=encoders.first,
        text_encoder_2=encoders.second,
        tokenizer=encoders.tokenizers[0],
        tokenizer_2=encoders.tokenizers[1],
        unet=denoiser,
        scheduler=unet.scheduler(),  # pyright: ignore[reportArgumentType] - diffusers names an enumeration of classes there
        # The denoiser was trained with the empty prompt, encoded, as its
        # unconditional input; zeros would be new to it.
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def frozen_parts(work: Path) -> tuple[AutoencoderKL, text.Encoders, float]:
    """The autoencoder, the text encoders and the latents' scaling, as trained."""
    facts = json.loads((work / "latents" / "scaling.json").read_text())
    trained_on = work / "decoder"
    autoencoder = vae.load(trained_on if trained_on.exists() else work / "vae")
    return autoencoder, text.load(work / "text", work / "tokenizer"), facts["scaling_factor"]


def write(work: Path, output: Path) -> None:
    """Writes the pipeline, with the averaged denoiser, in float16.

    Args:
        work: Holds the stage folders.
        output: Receives the pipeline.

    """
    autoencoder, encoders, scaling = frozen_parts(work)
    pipeline = assemble(autoencoder, encoders, unet.load(work / "unet"), scaling)
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
        part.half()
    pipeline.save_pretrained(output, safe_serialization=True)
    for name in ("text_encoder", "text_encoder_2"):
        # Without an explicit type diffusers loads its own models in float32 but
        # leaves text encoders in the type named here; the two must agree.
        config = output / name / "config.json"
        settings = json.loads(config.read_text())
        settings["dtype"] = "float32"
        config.write_text(json.dumps(settings, indent=2) + "\n")
        (output / name / "model.safetensors").chmod(0o644)
    for name in ("unet", "vae"):
        (output / name / "diffusion_pytorch_model.safetensors").chmod(0o644)
    # The plain vocabulary files are CLIP's interchange format; runtimes without
    # the tokenizers library read these.
    words.write(output / "tokenizer", words.END)
    words.write(output / "tokenizer_2", "!")
