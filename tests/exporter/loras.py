"""LoRAs for the tiny models, made here: in diffusers' format with its own writer, and in kohya's."""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

#: The layers that published LoRAs change, LCM-LoRA's among them.
UNET = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
UNET = (*UNET, "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj")
TEXT = ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1")


def layers(network, endings, *, rank=3, seed=0, size=0.3):
    """Random A and B for every layer of a network whose name ends so: {layer: (A, B)}."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    for name, layer in network.named_modules():
        if not name.endswith(endings):
            continue
        weight = layer.weight
        own = rank + len(found) % 2  # two ranks, so that a pattern is needed
        found[name] = (
            torch.randn(own, *weight.shape[1:], generator=random) * size / weight[0].numel() ** 0.5,
            torch.randn(weight.shape[0], own, *[1] * (weight.ndim - 2), generator=random) * size,
        )
    assert found
    return found


def delta(a, b, alpha):
    """The change of a weight that A, B and alpha are."""
    return (alpha / a.shape[0]) * (b.flatten(1) @ a.flatten(1)).reshape(b.shape[0], *a.shape[1:])


def save(file: Path, networks, *, metadata=None):
    """Write {component: layers} with peft's names, as diffusers does."""
    tensors = {}
    for component, found in networks.items():
        for name, (a, b) in found.items():
            tensors |= {f"{component}.{name}.lora_A.weight": a, f"{component}.{name}.lora_B.weight": b}
    save_file(tensors, file, metadata or {"format": "pt"})
    return file


def save_kohya(file: Path, networks, alpha=2.0, *, step=0.0, metadata=None):
    """Write {component: layers} with kohya's names; alpha, and alpha + step for every second layer."""
    starts = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    tensors = {}
    for component, found in networks.items():
        for number, (name, (a, b)) in enumerate(found.items()):
            full = name if component == "unet" or name.startswith("text_model.") else f"text_model.{name}"
            key = f"{starts[component]}_{full.replace('.', '_')}"
            tensors |= {f"{key}.lora_down.weight": a, f"{key}.lora_up.weight": b}
            tensors[f"{key}.alpha"] = torch.tensor(alpha + step * (number % 2))
    save_file(tensors, file, metadata or {"format": "pt"})
    return file


def sgm(name: str) -> str:
    """SDXL's name for a layer of diffusers' UNet: what SDXL-Lightning's files and many of kohya's use."""
    place, _, inner = re.sub(r"^mid_block\.", "", name).partition(".")
    if name.startswith("mid_block"):
        kind, number, rest = name.split(".", 3)[1:]
        head = f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}"
    else:
        block, kind, number, rest = inner.split(".", 3)
        up = place == "up_blocks"
        if kind == "downsamplers":
            head, rest = f"input_blocks.{3 * int(block) + 3}.0", "op"
        elif kind == "upsamplers":
            head = f"output_blocks.{3 * int(block) + 2}.{2 if int(block) < 2 else 1}"
        else:
            index = 3 * int(block) + int(number) + (0 if up else 1)
            head = f"{'output' if up else 'input'}_blocks.{index}.{int(kind == 'attentions')}"
    inside = {"conv1": "in_layers.2", "conv2": "out_layers.3"}
    inside |= {"time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
    return f"{head}.{inside.get(rest, rest)}"
