"""Stage ``vae``: an autoencoder from 64 x 64 pixels to 8 x 8 x 4 latents."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn
from torch.nn import functional

from tools.demo import scenes
from tools.demo.training.loop import Plan, Run, channels_last, fit

BATCH = 8
KL_WEIGHT = 1e-4
EDGE_WEIGHT = 2.0
DECODER_NOISE = 0.2
"""Largest noise on the decoder's own training latents, in unscaled latent units."""
HELD_BACK = 1_000_000_000
"""Scene seeds from here on are kept for measuring the autoencoder."""


def build() -> AutoencoderKL:
    """The autoencoder, untrained; shaped like SDXL's, with narrow blocks."""
    widths = (16, 16, 64, 96)
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        # diffusers takes one for each block, and says so for a single one.
        down_block_types=("DownEncoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType] - as above
        up_block_types=("UpDecoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType] - as above
        block_out_channels=widths,  # pyright: ignore[reportArgumentType] - as above
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=scenes.SIDE,
        scaling_factor=1.0,
        force_upcast=False,
    )
    return channels_last(model)


def posterior(model: AutoencoderKL, pixels: torch.Tensor) -> DiagonalGaussianDistribution:
    """The distribution of the latents (N, 4, 8, 8) of pixels (N, 3, 64, 64)."""
    return model.encode(pixels, return_dict=False)[0]


def decoded(model: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """The pixels (N, 3, 64, 64) of latents (N, 4, 8, 8)."""
    return model.decode(cast("torch.FloatTensor", latents), return_dict=False)[0]  # so diffusers names any tensor


def _start_well(model: AutoencoderKL) -> None:
    """Sets starting weights with which colours are learned in minutes.

    Normalisation inside the residual branches hides absolute colour, and the
    default weights shrink what passes beside them.  So the branches start
    silent, the path beside them keeps its variance, and the latents start
    almost without noise.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            weight = torch.empty(module.weight.shape)
            module.weight.data.copy_(nn.init.orthogonal_(weight))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith(".conv2"):
                module.weight.data *= 0.05
    model.get_parameter("quant_conv.bias").data[4:] = -6.0


def as_pixels(pictures: list[np.ndarray]) -> torch.Tensor:
    """Turns uint8 pictures (64, 64, 3) into float32 (N, 3, 64, 64) in -1..1."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return (stacked.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def as_pictures(pixels: torch.Tensor) -> np.ndarray:
    """Turns float (N, 3, 64, 64) in -1..1 into uint8 (N, 64, 64, 3)."""
    levels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _edges(pixels: torch.Tensor) -> torch.Tensor:
    """Local contrast of each pixel's 3 x 3 neighbourhood, (N, 1, H, W) in 0..1."""
    high = functional.max_pool2d(pixels, 3, 1, 1)
    low = -functional.max_pool2d(-pixels, 3, 1, 1)
    return (high - low).amax(1, keepdim=True).clamp(0, 1)


def _scenes_of(share: int) -> torch.Tensor:
    """The pictures of a share of data, as pixels."""
    seeds = range(share * BATCH, (share + 1) * BATCH)
    return as_pixels([scenes.draw(scenes.training_scene(seed)) for seed in seeds])


def _rebuilding_loss(rebuilt: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """L1 plus squared error, weighted towards edges: small objects cover few pixels and would blur."""
    error = rebuilt - pixels
    weight = 1 + EDGE_WEIGHT * _edges(pixels)
    return (weight * (error.abs() + error.square())).mean(), {"l1": error.abs().mean().item()}


def train(folder: Path, plan: Plan, *, resume: bool) -> None:
    """Trains the autoencoder on scenes drawn as it goes.

    Besides rebuilding the pictures, a small KL term keeps the latents smooth
    enough for diffusion.
    """
    torch.manual_seed(0)
    model = build()
    _start_well(model)

    def loss_at(share: int) -> tuple[torch.Tensor, dict[str, float]]:
        pixels = _scenes_of(share)
        latents = posterior(model, pixels)
        rebuilt, figures = _rebuilding_loss(decoded(model, latents.sample()), pixels)
        kl = latents.kl().mean() / latents.mean[0].numel()
        return rebuilt + KL_WEIGHT * kl, {**figures, "kl": kl.item()}

    fit(Run({"vae": model}, folder), plan, loss_at, resume=resume)


def train_decoder(folder: Path, start: Path, plan: Plan, *, resume: bool) -> None:
    """Trains the decoder alone on, with the latents left as they are.

    The denoiser's latents are never quite those of a picture, so noise is added
    to them here; the decoder learns to draw clean shapes from them all the same.

    Args:
        folder: Receives the checkpoint, of the whole autoencoder.
        start: Folder of the autoencoder to start from.
        plan: Length and learning rate.
        resume: Continue from the latest checkpoint.

    """
    model = load(start).train()
    for part in ("encoder", "quant_conv"):
        model.get_submodule(part).requires_grad_(requires_grad=False)

    def loss_at(share: int) -> tuple[torch.Tensor, dict[str, float]]:
        pixels = _scenes_of(share)
        with torch.no_grad():
            latents = posterior(model, pixels).sample()
            latents += DECODER_NOISE * torch.rand(BATCH, 1, 1, 1) * torch.randn_like(latents)
        return _rebuilding_loss(decoded(model, latents), pixels)

    fit(Run({"vae": model}, folder), plan, loss_at, resume=resume)


def load(folder: Path) -> AutoencoderKL:
    """The trained autoencoder of a stage folder, in evaluation mode."""
    model = build()
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    model.load_state_dict(content["modules"]["vae"])
    return model.eval()


@torch.no_grad()
def rebuild(model: AutoencoderKL, pictures: list[np.ndarray]) -> np.ndarray:
    """Encodes and decodes pictures; uint8 (N, 64, 64, 3)."""
    pixels = as_pixels(pictures)
    return as_pictures(decoded(model, posterior(model, pixels).mode()))
