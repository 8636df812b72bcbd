"""Stage ``unet``: the denoiser, trained to predict the noise in latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from torch.nn import functional

from tools.demo import captions
from tools.demo.training import text
from tools.demo.training.latents import Pool
from tools.demo.training.loop import Plan, Run, channels_last, fit

BATCH = 48
"""Samples per process; the recipe trains in two processes."""
UNET_STREAM = 4
EMPTY_SHARE = 0.1
"""Share of captions replaced by the empty prompt, which guidance needs."""
SNR_CAP = 20.0
"""Bound of the min-SNR loss weight; higher weighs fine detail more."""
TIME_EMBEDDING = 16
TIME_IDS = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)
"""SDXL's original size, crop corner and target size, in pixels."""


def scheduler() -> EulerDiscreteScheduler:
    """SDXL's noise schedule, with an Euler sampler."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        timestep_spacing="trailing",
        steps_offset=1,
    )


def build() -> UNet2DConditionModel:
    """The denoiser, untrained: SDXL's layout with narrow blocks."""
    model = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(80, 96, 96),
        layers_per_block=2,
        # diffusers takes a number for each block, and says so for the first alone.
        transformer_layers_per_block=[1, 1, 3],  # pyright: ignore[reportArgumentType] - as above
        attention_head_dim=[5, 6, 6],  # pyright: ignore[reportArgumentType] - as above
        cross_attention_dim=text.WIDTH + text.WIDTH_2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_EMBEDDING,
        projection_class_embeddings_input_dim=text.WIDTH_2 + len(TIME_IDS) * TIME_EMBEDDING,
        norm_num_groups=16,
    )
    return channels_last(model)


@dataclass(frozen=True)
class Inputs:
    """Folders of the earlier stages."""

    tokenizer: Path
    text: Path
    latents: Path


def schedule() -> tuple[torch.Tensor, torch.Tensor]:
    """Share of signal variance at each of the 1000 steps, and each step's loss weight.

    The weight is min-SNR: steps with almost no noise are easy and many, and
    would otherwise take most of the gradient.
    """
    kept = scheduler().alphas_cumprod
    snr = kept / (1 - kept)
    return kept, snr.clamp(max=SNR_CAP) / snr


def train(
    folder: Path,
    inputs: Inputs,
    plan: Plan,
    *,
    resume: bool,
    start: Path | None = None,
    batch: int = BATCH,
    fast: bool = True,
    watch: Callable[[int, UNet2DConditionModel], dict[str, float]] | None = None,
) -> None:
    """Trains the denoiser on the pool, with captions drawn anew each time.

    Args:
        folder: Receives the checkpoint and the curve.
        inputs: Folders of the earlier stages.
        plan: Length and learning rate.
        resume: Continue from the latest checkpoint.
        start: Another stage folder whose averaged weights to begin with;
            None begins with random ones.
        batch: Samples per step and process.
        fast: Compile the denoiser (about 1.5 minutes at the start).
        watch: Scores the averaged weights now and then.

    """
    torch.manual_seed(0)
    model = build()
    if start is not None:
        model.load_state_dict(load(start).state_dict())
    run = Run({"unet": model}, folder)
    encoders = text.load(inputs.text, inputs.tokenizer)
    pool = Pool(inputs.latents)
    kept, weights = schedule()
    time_ids = torch.tensor([TIME_IDS]).repeat(batch, 1)

    def predict(noisy: torch.Tensor, at: torch.Tensor, states: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        extra = {"text_embeds": pooled, "time_ids": time_ids}
        return model(noisy, at, states, added_cond_kwargs=extra, return_dict=False)[0]

    forward = torch.compile(predict) if fast else predict

    def loss_at(share: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng((UNET_STREAM, share))
        indices = rng.integers(len(pool), size=batch)
        texts = ["" if rng.random() < EMPTY_SHARE else captions.caption(pool.scenes[index], rng) for index in indices]
        with torch.no_grad():
            states, pooled = encoders(*encoders.tokens(texts))
        clean = pool.sample(indices)
        noise = torch.randn_like(clean)
        at = torch.randint(len(kept), (batch,))
        signal = kept[at].view(-1, 1, 1, 1)
        noisy = (signal.sqrt() * clean + (1 - signal).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        error = functional.mse_loss(forward(noisy, at, states, pooled), noise, reduction="none")
        each = error.mean((1, 2, 3))
        loss = (each * weights[at]).mean()
        return loss, {"mse": each.mean().item()}

    def watch_averaged(step: int) -> dict[str, float]:
        averaged = build()
        averaged.load_state_dict(run.ema["unet"])
        return watch(step, averaged.eval()) if watch is not None else {}

    fit(run, plan, loss_at, resume=resume, watch=watch_averaged if watch is not None else None)


def load(folder: Path) -> UNet2DConditionModel:
    """The averaged denoiser of a stage folder, in evaluation mode."""
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    model = build()
    model.load_state_dict(content["ema"]["unet"])
    return model.eval()
