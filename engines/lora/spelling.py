"""How files of LoRAs spell a network's layers: diffusers, peft, kohya, LyCORIS and ComfyUI, of each both of a UNet's layouts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

#: Component → how the names of its weights start: diffusers' and peft's, kohya's, LyCORIS', ComfyUI's.
PREFIXES = {
    "unet": ("unet.", "lora_unet_", "lycoris_unet_", "lycoris_", "diffusion_model.", "model.diffusion_model."),
    "text_encoder": (
        *("text_encoder.", "lora_te_", "lora_te1_", "text_encoders.clip_l.transformer.", "clip_l.transformer."),
        *("lycoris_text_model_", "lycoris_encoder_"),
    ),
    "text_encoder_2": ("text_encoder_2.", "lora_te2_", "text_encoders.clip_g.transformer.", "clip_g.transformer."),
}
#: What peft puts before all names; the network is told by what follows.
_PEFT = "base_model.model."
#: Embeddings of words that LyCORIS bundles with a LoRA.
BUNDLED = "bundle_emb."
_BARE = {"unet": re.compile(r"(down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding)\b.*")}
_BARE["text_encoder"] = re.compile(r"(text_model|encoder\.layers)\..*")
#: Name in diffusers' UNet → in ldm's.
_OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_INNER = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
#: What the end of a name says: (pattern, what it becomes); the first group is the layer. diffusers' own older spellings first.
_ENDS = [
    (re.compile(r"(.+?)(?:\.processor)?\.(to_[qkv])_lora\.(down|up)\.weight"), r"\1.\2", r"\3"),
    (re.compile(r"(.+?)(?:\.processor)?\.(to_out)_lora\.(down|up)\.weight"), r"\1.\2.0", r"\3"),
    (re.compile(r"(.+)\.(?:lora|lora_linear_layer)\.(down|up)\.weight"), r"\1", r"\2"),
    (re.compile(r"(.+)\.lora_(down|up|mid)(?:\.weight)?"), r"\1", r"\2"),
    (re.compile(r"(.+)\.lora_A(?:\.(?!weight$)[\w-]+)?(?:\.weight)?"), r"\1", "down"),
    (re.compile(r"(.+)\.lora_B(?:\.(?!bias$)[\w-]+)?\.bias"), r"\1", "up_bias"),
    (re.compile(r"(.+)\.lora_B(?:\.(?!weight$)[\w-]+)?(?:\.weight)?"), r"\1", "up"),
    (re.compile(r"(.+)\.lora_magnitude_vector(?:\.(?!weight$)[\w-]+)?(?:\.weight)?"), r"\1", "magnitude"),
    (
        re.compile(
            r"(.+)\.(alpha|scalar|dora_scale|diff|diff_b|w_norm|b_norm|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))"
        ),
        r"\1",
        r"\2",
    ),
]
#: Weights that are no change of others; peft's `bias` and `modules_to_save` write such.
_WHOLE = "whole weights to put in place"
#: What a name holds that is of another way of changing a network → what the way is called.
_OTHERS = {
    "boft_": "BOFT",
    "oft_": "OFT",
    "on_input": "(IA)³",
    "ia3_l": "(IA)³",
    ".lora_E": "AdaLoRA",
    "vera_lambda_": "VeRA",
    "fourierft_": "FourierFT",
    "hra_u": "HRA",
    "miss_block": "MiSS",
    "bone_": "Bone",
    "ln_tuning_layers": "LN tuning",
    "randlora_": "RandLoRA",
    "shira_weight": "SHiRA",
    "c3a_kernel": "C3A",
    "delora_": "DeLoRA",
    "road_theta": "RoAd",
    "gralora_": "GraLoRA",
    "waveft_": "WaveFT",
    "vblora_": "VB-LoRA",
    "_custom_diffusion": "Custom Diffusion",
    "set_weight": _WHOLE,
    ".base_layer.": _WHOLE,
    "reshape_weight": "layers of another shape",
    "lora_embedding_": "LoRA of embeddings",
    ".a1.": "GLoRA",
    ".b1.": "GLoRA",
}


def owner(name: str) -> str:
    """The component whose weight a name stands for; empty where nothing says."""
    bare = name.removeprefix(_PEFT)
    starts = {start: component for component, own in PREFIXES.items() for start in own if bare.startswith(start)}
    if starts:
        return starts[max(starts, key=len)]
    return next((component for component, pattern in _BARE.items() if pattern.match(bare)), "")


def split(name: str) -> tuple[str, str] | None:
    """Layer as it is spelled, and what of it (`down`, `up`, `alpha`, `hada_w1_a` …); None for an end that nobody knows."""
    name = name.removeprefix(_PEFT)
    for pattern, layer, what in _ENDS:
        if match := pattern.fullmatch(name):
            return match.expand(layer), match.expand(what)
    return None


def other_format(names: Iterable[str]) -> str:
    """What a file's way of changing a network is called, where it is none that is read; empty for all others."""
    listed = list(names)
    return next((called for mark, called in _OTHERS.items() if any(mark in name for name in listed)), "")


def left_over(names: Sequence[str]) -> str:
    """What the rest of a file is called, of which some weights have their place; empty where nobody knows."""
    plain = (name for name in names if owner(name) and split(name) is None and "lora" not in name.lower())
    return other_format(names) or (_WHOLE if any(name.endswith((".weight", ".bias")) for name in plain) else "")


def spellings(component: str, layers: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Every spelling of a network's layers → the layer.

    Args:
        component: the network.
        layers: its modules' names.
        config: of the pipeline's UNet, whose blocks the original layout numbers.

    """
    return {each: layer for layer, bare in bares(component, layers, config).items() for each in prefixed(component, bare)}


def bares(component: str, layers: Iterable[str], config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Layer of a network → how it is spelled in either layout, without what files put before it; arguments as of `spellings`."""
    names = list(layers)
    if component == "unet":
        return {layer: tuple(_unet(layer, config, names)) for layer in names}
    return {layer: tuple(_text(layer)) if component in PREFIXES else (layer,) for layer in names}


def prefixed(component: str, bare: Iterable[str]) -> Iterator[str]:
    """Spellings with each of the beginnings that files give the names of a component."""
    for name in bare:
        yield name
        for start in PREFIXES.get(component, ()):
            yield start + (name.replace(".", "_") if start.endswith("_") else name)


def _text(layer: str) -> Iterator[str]:
    bare = layer.removeprefix("text_model.")
    yield bare
    yield f"text_model.{bare}"
    for ours, old in (("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("out_proj", "to_out.0")):
        if bare.endswith(f"self_attn.{ours}"):
            yield f"text_model.{bare.removesuffix(ours)}{old}"


def _unet(layer: str, config: Mapping[str, Any], known: Sequence[str]) -> Iterator[str]:
    yield layer
    if original := _original(layer, config, known):
        yield original


def _original(layer: str, config: Mapping[str, Any], known: Sequence[str]) -> str:
    """Ldm's name of a layer of diffusers' UNet; empty where it has none."""
    if layer in _OUTER:
        return _OUTER[layer]
    stages = len(config["down_block_types"])
    given = config.get("layers_per_block", 2)
    depths = [given] * stages if isinstance(given, int) else list(given)
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", layer):
        place = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{place}.{_INNER.get(match[3], match[3])}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", layer)
    if match is None:
        return ""
    way, stage, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    counts = [depth + 1 for depth in (depths if way == "down" else depths[::-1])]
    first = sum(counts[:stage]) + (way == "down")
    last = first + counts[stage] - 1
    if kind == "downsamplers":
        return f"input_blocks.{last}.0.op"
    if kind == "upsamplers":
        attends = any(name.startswith(f"up_blocks.{stage}.attentions.") for name in known)
        return f"output_blocks.{last}.{1 + attends}.conv"
    head = f"{'input' if way == 'down' else 'output'}_blocks.{first + index}"
    return f"{head}.0.{_INNER.get(rest, rest)}" if kind == "resnets" else f"{head}.1.{rest}"
