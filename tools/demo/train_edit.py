"""Trains the demo model to change a picture as an instruction says, as InstructPix2Pix does: "make it red".

    python -m tools.demo.train_edit

The denoiser gets four more channels, for the latent of the picture that is given. Its outermost blocks, which copy what stays as
it is, are trained whole, every layer between them by a change of low rank, so that what is learned is a small file beside the
demo's own weights. Everything comes from seeds, and `--resume` goes on where a cut training stopped; `--change FILE` starts a
new one from what an earlier one learned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from tools.demo import scenes
from tools.demo.edits import edit
from tools.demo.training.loop import Plan, Run, fit
from tools.demo.training.noised import error, noised
from tools.demo.training.unet import TIME_IDS
from tools.demo.training.vae import as_pixels, posterior

RANK = 12
BATCH = 32
STEPS = 1400
POOL = 4000
EDIT_STREAM = 11
LEFT_OUT = 0.05
"""Share of examples without text or picture; twice as many have their picture alone. The two guidances need them."""
WHOLE = ("conv_in.", "down_blocks.0.", "up_blocks.2.", "conv_norm_out.", "conv_out.")
"""How the names of what is trained whole begin."""
_LAYERS = (
    r"(down_blocks\.[12]|mid_block|up_blocks\.[01])\..*"
    r"(to_[qkv]|to_out\.0|proj_in|proj_out|net\.0\.proj|net\.2|conv\w*|time_emb_proj)"
)
"""Those that are changed by low rank: all between, as one expression."""
SEEN = 0.2
"""How much the picture counts at the start, beside the noisy latent, in whose way it is read."""
_RATE = 1e-3
_WARMUP = 60
_SAVE_EVERY = 100
_ENCODED = 64


def widen(unet: Any) -> None:  # noqa: ANN401 - diffusers'
    """Give a denoiser four channels more to read, at first as a little more of the noisy latent: zeros learn slowly."""
    old = unet.conv_in
    wide: Any = torch.nn.Conv2d(2 * old.in_channels, old.out_channels, old.kernel_size, padding=old.padding)
    with torch.no_grad():
        wide.weight.copy_(torch.cat([old.weight, SEEN * old.weight], 1))
        wide.bias.copy_(old.bias)
    unet.conv_in = wide
    unet.register_to_config(in_channels=wide.in_channels)


def adapt(unet: Any) -> None:  # noqa: ANN401 - diffusers'
    """Widen the denoiser, and let it learn by changes of low rank."""
    widen(unet)
    unet.requires_grad_(requires_grad=False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=_LAYERS))
    for name, weight in unet.named_parameters():
        weight.requires_grad_(weight.requires_grad or name.startswith(WHOLE))


def learned(unet: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - diffusers'
    """What training changed, float16: the changes of low rank in peft's names, and what was trained whole."""
    whole = {name: value for name, value in unet.named_parameters() if name.startswith(WHOLE)}
    changed = {**get_peft_model_state_dict(unet), **whole}
    return {name: value.detach().to(torch.float16).contiguous() for name, value in changed.items()}


def taught(unet: Any, change: Path) -> None:  # noqa: ANN401 - diffusers'
    """Give a denoiser that is adapted what an earlier training has learned."""
    values = {name: value.float() for name, value in load_file(change).items()}
    unet.load_state_dict({name: values.pop(name) for name in tuple(values) if name.startswith(WHOLE)}, strict=False)
    set_peft_model_state_dict(unet, values)


class Pool:
    """Edits with what the frozen networks make of them, computed once.

    Attributes:
        given: Latents of the pictures before, float32 (N, 4, 8, 8), not scaled.

    """

    @torch.no_grad()
    def __init__(self, pipeline: Any, count: int) -> None:  # noqa: ANN401 - diffusers'
        self._edits = [edit(scenes.training_scene(seed), np.random.default_rng((EDIT_STREAM, 0, seed))) for seed in range(count)]
        given, moments = list[torch.Tensor](), list[tuple[torch.Tensor, torch.Tensor]]()
        for start in range(0, count, _ENCODED):
            some = self._edits[start : start + _ENCODED]
            given.append(posterior(pipeline.vae, as_pixels([scenes.draw(each.before) for each in some])).mode())
            asked = posterior(pipeline.vae, as_pixels([scenes.draw(each.after) for each in some]))
            moments.append((asked.mean, asked.std))
        self.given = torch.cat(given)
        self._mean, self._spread = (torch.cat(each) for each in zip(*moments, strict=True))
        self._scaling = pipeline.vae.config.scaling_factor
        texts = sorted({"", *(each.text for each in self._edits)})
        self._place = {text: place for place, text in enumerate(texts)}
        states, _, pooled, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
        self._states, self._pooled = states, pooled

    def asked(self, chosen: torch.Tensor) -> torch.Tensor:
        """Draws the scaled latents of the pictures after, with torch's generator."""
        mean = self._mean[chosen]
        return (mean + self._spread[chosen] * torch.randn_like(mean)) * self._scaling

    def text(self, chosen: torch.Tensor, said: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """States and pooled embedding of the instructions, of the empty prompt where they are not said."""
        pairs = zip(chosen.tolist(), said, strict=True)
        places = [self._place[self._edits[index].text if each else ""] for index, each in pairs]
        return self._states[places], self._pooled[places]


def train(
    source: Path,
    folder: Path,
    steps: int,
    *,
    batch: int = BATCH,
    pool: int = POOL,
    rate: float = _RATE,
    change: Path | None = None,
    resume: bool = False,
    stop_at: int | None = None,
) -> Path:
    """Trains the denoiser and writes what it learned.

    Args:
        source: The demo's pipeline.
        folder: Receives the checkpoint, the curve, and `edit.safetensors`.
        steps: Steps of the optimizer.
        batch: Pictures a step.
        pool: Different edits in all.
        rate: Highest learning rate.
        change: What an earlier training learned, to start from; None to start from the demo.
        resume: Continue from the latest checkpoint; without one, start.
        stop_at: Step at which to stop as if cut, for tests.

    Returns:
        The file of what was learned.

    """
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(source, dtype=torch.float32)
    torch.manual_seed(0)
    adapt(pipeline.unet)
    if change:
        taught(pipeline.unet, change)
    lessons = Pool(pipeline, pool)
    time_ids = torch.tensor([TIME_IDS]).repeat(batch, 1)

    def loss_at(share: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng((EDIT_STREAM, share))
        chosen, left = torch.from_numpy(rng.integers(pool, size=batch)), rng.random(batch)
        shown = torch.from_numpy(left >= LEFT_OUT)
        states, pooled = lessons.text(chosen, left >= 3 * LEFT_OUT)
        noisy, at, noise = noised(lessons.asked(chosen), much=True)
        # As the pipeline hands it over: not scaled, and zeros where there is no picture.
        both = torch.cat([noisy, lessons.given[chosen] * shown.view(-1, 1, 1, 1)], 1)
        extra = {"text_embeds": pooled, "time_ids": time_ids}
        return error(pipeline.unet(both, at, states, added_cond_kwargs=extra, return_dict=False)[0], noise, at), {}

    plan = Plan(steps, peak=rate, warmup=_WARMUP, save_every=stop_at or _SAVE_EVERY, stop_at=stop_at)
    fit(Run({"unet": pipeline.unet}, folder), plan, loss_at, resume=resume)
    save_file(learned(pipeline.unet), folder / "edit.safetensors")
    return folder / "edit.safetensors"


@click.command()
@click.option("--source", type=click.Path(path_type=Path, exists=True), default=Path("recipes/demo"), show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path(".train"), show_default=True)
@click.option("--steps", default=STEPS, show_default=True)
@click.option("--pool", default=POOL, show_default=True, help="Different edits.")
@click.option("--rate", default=_RATE, show_default=True, help="Highest learning rate.")
@click.option("--change", type=click.Path(path_type=Path, exists=True), help="Start from what an earlier training learned.")
@click.option("--resume", is_flag=True, help="Continue from the latest checkpoint.")
def main(source: Path, work: Path, steps: int, pool: int, rate: float, change: Path | None, *, resume: bool) -> None:
    """Trains the demo model to change pictures."""
    click.echo(train(source, work / "edit", steps, pool=pool, rate=rate, change=change, resume=resume))


if __name__ == "__main__":
    main()
