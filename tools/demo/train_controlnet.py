"""Trains a ControlNet of the demo model: the edges of a scene say where its objects are, and of which shape and size.

    python -m tools.demo.train_controlnet

Scenes, captions and noise are the demo's own, and the demo itself stays as it is. Everything comes from seeds, and `--resume`
goes on where a cut training stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionXLPipeline, UNet2DConditionModel

from tools.demo import captions, scenes
from tools.demo.edges import edges
from tools.demo.training.loop import Plan, Run, fit
from tools.demo.training.noised import error, noised
from tools.demo.training.unet import EMPTY_SHARE, TIME_IDS
from tools.demo.training.vae import as_pixels, posterior

BATCH = 32
STEPS = 1200
CONTROL_STREAM = 10
_WIDTHS = (16, 32, 64, 96)
_RATE = 1e-3
_WARMUP = 100
_SAVE_EVERY = 100


def build(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that begins as a copy of the denoiser's first half, but for its attention: edges say nothing of words."""
    whole = ControlNetModel.from_unet(unet)
    plain = {
        "down_block_types": ["DownBlock2D"] * len(whole.config["down_block_types"]),
        "mid_block_type": "UNetMidBlock2D",
        "conditioning_embedding_out_channels": _WIDTHS,
    }
    made: Any = ControlNetModel.from_config({**whole.config, **plain})
    fitting = {name: value.shape for name, value in made.state_dict().items()}
    weights = whole.state_dict()
    copied = {name: value for name, value in weights.items() if fitting.get(name) == value.shape}
    made.load_state_dict(copied, strict=False)
    # It starts at zero as what comes out of the ControlNet does, and one of the two is enough: both together learn slowly.
    made.controlnet_cond_embedding.conv_out.reset_parameters()
    return made


def train(
    source: Path, folder: Path, steps: int, *, batch: int = BATCH, resume: bool = False, stop_at: int | None = None
) -> Path:
    """Trains the ControlNet and writes it as diffusers does, in float16.

    Args:
        source: The demo's pipeline.
        folder: Receives the checkpoint, the curve, and the folder `controlnet`.
        steps: Steps of the optimizer.
        batch: Pictures a step.
        resume: Continue from the latest checkpoint; without one, start.
        stop_at: Step at which to stop as if cut, for tests.

    Returns:
        The ControlNet's folder.

    """
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(source, dtype=torch.float32)
    pipeline.unet.requires_grad_(requires_grad=False)
    torch.manual_seed(0)
    control: Any = build(pipeline.unet).train()
    time_ids = torch.tensor([TIME_IDS]).repeat(batch, 1)

    def loss_at(share: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng((CONTROL_STREAM, share))
        chosen = [scenes.training_scene(int(seed)) for seed in rng.integers(1 << 30, size=batch)]
        texts = ["" if rng.random() < EMPTY_SHARE else captions.caption(scene, rng) for scene in chosen]
        pictures = [scenes.draw(scene) for scene in chosen]
        hint = torch.from_numpy(np.stack([edges(picture) for picture in pictures])).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            states, _, pooled, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
            clean = posterior(pipeline.vae, as_pixels(pictures)).sample() * pipeline.vae.config.scaling_factor
        noisy, at, noise = noised(clean)
        extra = {"text_embeds": pooled, "time_ids": time_ids}
        down, mid = control(noisy, at, states, hint, added_cond_kwargs=extra, return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        predicted = pipeline.unet(noisy, at, states, added_cond_kwargs=extra, return_dict=False, **residuals)[0]
        return error(predicted, noise, at), {}

    plan = Plan(steps, peak=_RATE, warmup=_WARMUP, save_every=stop_at or _SAVE_EVERY, stop_at=stop_at)
    fit(Run({"controlnet": control}, folder), plan, loss_at, resume=resume)
    control.to(torch.float16).save_pretrained(folder / "controlnet")
    return folder / "controlnet"


@click.command()
@click.option("--source", type=click.Path(path_type=Path, exists=True), default=Path("recipes/demo"), show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path(".train"), show_default=True)
@click.option("--steps", default=STEPS, show_default=True)
@click.option("--resume", is_flag=True, help="Continue from the latest checkpoint.")
def main(source: Path, work: Path, steps: int, *, resume: bool) -> None:
    """Trains a ControlNet of the demo model."""
    click.echo(train(source, work / "controlnet", steps, resume=resume))


if __name__ == "__main__":
    main()
