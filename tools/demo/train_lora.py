"""Trains a LoRA of the demo model: a colour or a shape that all objects take on, whatever captions say.

    python -m tools.demo.train_lora stars
    python -m tools.demo.train_lora cyan

Scenes, captions and noise are the demo's own; the pictures are changed as ``tools.demo.changes`` says. Everything comes from
seeds, and ``--resume`` goes on where a cut training stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch.nn import functional

from tools.demo import captions, scenes
from tools.demo.changes import CHANGES
from tools.demo.training.loop import Plan, Run, fit
from tools.demo.training.unet import EMPTY_SHARE, TIME_IDS
from tools.demo.training.vae import as_pixels, posterior

RANK = 4
BATCH = 32
LORA_STREAM = 9
_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
_RATE = 2e-3
_WARMUP = 30
_SAVE_EVERY = 50


def train(
    name: str, source: Path, folder: Path, steps: int, *, batch: int = BATCH, resume: bool = False, stop_at: int | None = None
) -> Path:
    """Trains one LoRA and writes it as diffusers does.

    Args:
        name: A key of ``CHANGES``.
        source: The demo's pipeline.
        folder: Receives the checkpoint, the curve, and ``<name>.safetensors``.
        steps: Steps of the optimizer.
        batch: Pictures a step.
        resume: Continue from the latest checkpoint; without one, start.
        stop_at: Step at which to stop as if cut, for tests.

    Returns:
        The LoRA's file.

    """
    change = CHANGES[name]
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(source, dtype=torch.float32)
    pipeline.unet.requires_grad_(requires_grad=False)
    torch.manual_seed(0)
    pipeline.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=_LAYERS))
    kept = pipeline.scheduler.alphas_cumprod
    time_ids = torch.tensor([TIME_IDS]).repeat(batch, 1)

    def loss_at(share: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng((LORA_STREAM, share))
        chosen = [scenes.training_scene(int(seed)) for seed in rng.integers(1 << 30, size=batch)]
        texts = ["" if rng.random() < EMPTY_SHARE else captions.caption(scene, rng) for scene in chosen]
        with torch.no_grad():
            states, _, pooled, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
            pixels = as_pixels([scenes.draw(change.scene(scene)) for scene in chosen])
            clean = posterior(pipeline.vae, pixels).sample() * pipeline.vae.config.scaling_factor
        noise = torch.randn_like(clean)
        at = torch.randint(len(kept), (batch,))
        signal = kept[at].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        extra = {"text_embeds": pooled, "time_ids": time_ids}
        loss = functional.mse_loss(pipeline.unet(noisy, at, states, added_cond_kwargs=extra, return_dict=False)[0], noise)
        return loss, {}

    plan = Plan(steps, peak=_RATE, warmup=_WARMUP, save_every=stop_at or _SAVE_EVERY, stop_at=stop_at)
    fit(Run({"unet": pipeline.unet}, folder), plan, loss_at, resume=resume)
    # In peft's names: those that `convert_state_dict_to_diffusers` makes are of two kinds, of which diffusers then reads one.
    layers = get_peft_model_state_dict(pipeline.unet)
    halved: dict[str, Any] = {key: value.to(torch.float16).contiguous() for key, value in layers.items()}
    StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=halved, weight_name=f"{name}.safetensors")
    return folder / f"{name}.safetensors"


@click.command()
@click.argument("name", type=click.Choice(list(CHANGES)))
@click.option("--source", type=click.Path(path_type=Path, exists=True), default=Path("recipes/demo"), show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path(".train"), show_default=True)
@click.option("--steps", default=400, show_default=True)
@click.option("--resume", is_flag=True, help="Continue from the latest checkpoint.")
def main(name: str, source: Path, work: Path, steps: int, *, resume: bool) -> None:
    """Trains a LoRA of the demo model."""
    click.echo(train(name, source, work / f"lora-{name}", steps, resume=resume))


if __name__ == "__main__":
    main()
