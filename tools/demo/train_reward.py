"""Trains a small pair of encoders on the demo's scenes: a reward that says how well a picture shows its prompt.

    python -m tools.demo.train_reward --out rewards/scenes --minutes 12

A CLIP of transformers, contrasted within batches of scenes and their near misses: the same scene with one colour or shape
changed, or with its objects changed for each other. It never sees a picture of the demo model, nor the checker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from tools.demo.captions import caption
from tools.demo.pictures import best_device
from tools.demo.scenes import COLOURS, SHAPES, SIDE, Scene, draw, training_scene

DEMO = Path(__file__).parents[2] / "recipes" / "demo"
#: Of pixels in [0, 1], before the network sees them.
_MEAN, _STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


def near_miss(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one thing changed that every caption says."""
    things = list(scene.things)
    if len(things) == 2 and rng.random() < 0.4:
        first, second = things
        there = {"x": second.x, "y": second.y, "size": second.size}
        things = [replace(first, **there), replace(second, x=first.x, y=first.y, size=first.size)]
        opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
        return replace(scene, things=tuple(things), relation=opposite[str(scene.relation)])
    index = int(rng.integers(len(things)))
    field, options = ("colour", list(COLOURS)) if rng.random() < 0.5 else ("shape", list(SHAPES))
    others = [each for each in options if each != getattr(things[index], field)]
    things[index] = replace(things[index], **{field: others[int(rng.integers(len(others)))]})
    return replace(scene, things=tuple(things))


def batches(size: int, seed: int = 0) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Pictures, uint8 (size, height, width, 3), and their captions, without end: each second one nearly the one before."""
    number = seed
    while True:
        scenes, texts = list[Scene](), list[str]()
        while len(scenes) < size:
            rng = np.random.default_rng((3, number))
            scene = training_scene(1_000_000 + number)
            scenes += [scene, near_miss(scene, rng)]
            texts += [caption(each, rng) for each in scenes[-2:]]
            number += 1
        yield np.stack([draw(each) for each in scenes]), texts


def model() -> Any:  # noqa: ANN401 - transformers'
    """The pair of encoders: the demo's own first text encoder, and random weights for pictures."""
    import torch  # noqa: PLC0415 - help needs none
    from transformers import CLIPConfig, CLIPModel, CLIPTextModel  # noqa: PLC0415

    torch.manual_seed(0)
    texts = CLIPTextModel.from_pretrained(DEMO / "text_encoder")
    vision = {"num_attention_heads": 4, "hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 3}
    vision |= {"image_size": SIDE, "patch_size": 8}
    network = CLIPModel(CLIPConfig(text_config=texts.config.to_dict(), vision_config=vision, projection_dim=64))
    network.text_model.load_state_dict(texts.state_dict(), strict=True)
    return network


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the model.")
@click.option("--minutes", type=float, default=12.0, show_default=True, help="Of training.")
@click.option("--batch", default=64, show_default=True, help="Pictures of a step, half of them near misses.")
@click.option("--rate", default=1e-3, show_default=True, help="Highest learning rate.")
def main(out: Path, minutes: float, batch: int, rate: float) -> None:
    """Train, and save the model with what prepares its inputs."""
    import torch  # noqa: PLC0415 - as above
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPProcessor  # noqa: PLC0415

    device, tokenizer = best_device(), AutoTokenizer.from_pretrained(DEMO / "tokenizer")
    length = tokenizer.model_max_length
    network = model().to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    labels = torch.arange(batch, device=device)
    start = last = time.monotonic()
    for step, (images, texts) in enumerate(batches(batch)):
        share = (time.monotonic() - start) / (60 * minutes)
        if share >= 1:
            break
        optimizer.param_groups[0]["lr"] = rate * min((step + 1) / 100, 1 - share)
        pixels = (torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255 - _MEAN[0]) / _STD[0]
        ids = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt").to(device)
        logits = network(pixel_values=pixels, **ids).logits_per_image
        loss = (torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if time.monotonic() - last > 10:
            last = time.monotonic()
            right = (logits.argmax(1) == labels).float().mean()
            click.echo(f"{share:4.0%}  step {step}  loss {loss.item():.3f}  its own caption of {batch}: {float(right):.0%}")
    network.eval().cpu().save_pretrained(out)
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    prepare: Any = CLIPImageProcessor  # whose words are typed by a base class
    CLIPProcessor(prepare(**sizes, image_mean=_MEAN, image_std=_STD), tokenizer).save_pretrained(out)


if __name__ == "__main__":
    main()
