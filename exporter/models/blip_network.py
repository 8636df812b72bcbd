"""The network of an ImageReward: transformers' BLIP under the names of its published weights, and the head on top."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from engines.errors import UnsupportedError

#: The head's numbers over the pictures of ImageReward's own evaluation, by which a reward is near N(0, 1).
_MEAN, _STD = 0.16717362830052426, 1.0333394966054072
#: Width of a head of attention, in every BLIP.
_HEAD = 64
#: Published name → transformers', in order; the text encoder's are the same but for where it stands.
_NAMES = (
    (r"blip\.text_encoder\.", "text."),
    (r"blip\.visual_encoder\.cls_token", "vision.embeddings.class_embedding"),
    (r"blip\.visual_encoder\.pos_embed", "vision.embeddings.position_embedding"),
    (r"blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.norm(\d)\.", r"vision.encoder.layers.\1.layer_norm\2."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision.encoder.layers.\1.self_attn.qkv."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision.encoder.layers.\1.self_attn.projection."),
    (r"blip\.visual_encoder\.blocks\.", "vision.encoder.layers."),
    (r"mlp\.layers\.", "head."),
)
#: What a file holds of BLIP that a reward has no use for: projections for contrasting, and positions that are counted.
_UNUSED = re.compile(r"blip\.(vision_proj|text_proj)\..*|blip\.text_encoder\.embeddings\.position_ids")


class BlipNetwork(nn.Module):
    """Prepared pictures (N, side, side, 3), ids and mask (N, length) → how much people like them, (N,).

    Attributes:
        side: of the pictures, in pixels.

    """

    def __init__(self, side: int, vision: BlipVisionConfig, text: BlipTextConfig, head: nn.Module) -> None:
        super().__init__()
        self.side = side
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.head = head

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Read the texts while looking at the pictures; the head judges by what stands at [CLS]."""
        seen = self.vision(pixel_values=image.permute(0, 3, 1, 2)).last_hidden_state
        read = self.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False).last_hidden_state
        return (self.head(read[:, 0]).squeeze(-1) - _MEAN) / _STD


def load(file: Path, config: Mapping[str, Any]) -> BlipNetwork:
    """Read a network from a file, whose shapes say how it is built; `config` is what med_config.json says of the text encoder.

    Raises:
        UnsupportedError: it is no ImageReward, or damaged.

    """
    weights = renamed(_tensors(file))
    try:
        network = built({name: tuple(each.shape) for name, each in weights.items()}, config)
    except (KeyError, ValueError) as error:
        raise UnsupportedError(f"{file} is no ImageReward: {error} is missing or of another shape.") from error
    own = network.state_dict()
    for kind, names in (("lacks", own.keys() - weights.keys()), ("has of another network", weights.keys() - own.keys())):
        if names:
            raise UnsupportedError(f"{file} {kind} {len(names)} weights, {min(names)} among them. Take ImageReward.pt.")
    if other := sorted(name for name in own if own[name].shape != weights[name].shape):
        raise UnsupportedError(f"{file}: {other[0]} is {tuple(weights[other[0]].shape)}, not {tuple(own[other[0]].shape)}.")
    network.load_state_dict(weights)
    return network


def built(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> BlipNetwork:
    """Build a network with weights of these shapes, by transformers' names; KeyError where one is missing that says how."""
    width, _, patch, _ = shapes["vision.embeddings.patch_embedding.weight"]
    side = round((shapes["vision.embeddings.position_embedding"][1] - 1) ** 0.5) * patch
    vision = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=shapes["vision.encoder.layers.0.mlp.fc1.weight"][0],
        num_hidden_layers=_count(shapes, r"vision\.encoder\.layers\.(\d+)\."),
        num_attention_heads=width // _HEAD,
        image_size=side,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    words, wide = shapes["text.embeddings.word_embeddings.weight"]
    text = BlipTextConfig(
        vocab_size=words,
        hidden_size=wide,
        encoder_hidden_size=width,
        intermediate_size=shapes["text.encoder.layer.0.intermediate.dense.weight"][0],
        num_hidden_layers=_count(shapes, r"text\.encoder\.layer\.(\d+)\."),
        num_attention_heads=int(config.get("num_attention_heads", wide // _HEAD)),
        max_position_embeddings=shapes["text.embeddings.position_embeddings.weight"][0],
        hidden_act=config.get("hidden_act", "gelu"),
        layer_norm_eps=float(config.get("layer_norm_eps", 1e-12)),
    )
    numbers = sorted(int(match[1]) for name in shapes if (match := re.fullmatch(r"head\.(\d+)\.weight", name)))
    sides = {str(number): shapes[f"head.{number}.weight"] for number in numbers}
    return BlipNetwork(
        side, vision, text, _Chain({number: nn.Linear(before, after) for number, (after, before) in sides.items()})
    )


class _Chain(nn.ModuleDict):
    """Layers one after the other, by the numbers that they have where dropout stands between them."""

    def forward(self, rows: Tensor) -> Tensor:
        for layer in self.values():
            rows = layer(rows)
        return rows


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by transformers' names, in float32, without those that a reward has no use for."""
    found = {}
    for name, tensor in tensors.items():
        if _UNUSED.fullmatch(name):
            continue
        told = name
        for published, own in _NAMES:
            told, count = re.subn(rf"^{published}", own, told)
            if count:
                break
        found[told] = tensor.float()
    return found


def _tensors(file: Path) -> dict[str, Tensor]:
    """What a file holds. Of a pickle torch makes tensors and nothing else, so no code of it is run."""
    try:
        found = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(f"{file} cannot be read: {line}. Download it again.") from error
    if not isinstance(found, dict) or not all(isinstance(each, Tensor) for each in found.values()):
        raise UnsupportedError(f"{file} holds something else than tensors by name. Take ImageReward.pt.")
    return found


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    return 1 + max(int(match[1]) for name in shapes if (match := re.match(pattern, name)))
