"""Which architecture a UNet's weights are of, by the shapes of known tensors: what else lies in the file does not matter."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from exporter.models import architectures

Shapes = Mapping[str, Sequence[int]]
#: What the names of a UNet's weights start with, in single files; alone it may have none of them.
_STARTS = ("model.diffusion_model.", "unet.")


@dataclass(frozen=True)
class Outline:
    """A UNet by its known tensors, in ldm's names or in diffusers'.

    Attributes:
        channels: into the first convolution.
        out: of the last one.
        context: widths of the text that cross-attention reads.
        added: width of the embedding of size and pooled text, 0 without.
        guided: width of the embedding of the guidance scale, 0 without.
        resnets: (inputs, outputs) of every block's first convolution, sorted.
        attentions: (queries, inputs of the keys) of every self-attention, sorted.

    """

    channels: int
    out: int
    context: tuple[int, ...]
    added: int
    guided: int
    resnets: tuple[tuple[int, int], ...]
    attentions: tuple[tuple[int, int], ...]

    def differences(self, other: Outline) -> list[str]:
        """Names of the attributes in which two differ."""
        return [each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name)]


def outline(shapes: Shapes) -> Outline | None:
    """Read the outline off a file's shapes; None where there is no UNet of this kind in it."""
    start = next((start for start in _STARTS if any(name.startswith(start) for name in shapes)), "")
    own = {name.removeprefix(start): tuple(shape) for name, shape in shapes.items() if name.startswith(start)}

    def first(*names: str, axis: int) -> int:
        return next((own[name][axis] for name in names if len(own.get(name, ())) > axis), 0)

    def ending(end: str) -> dict[str, tuple[int, ...]]:
        return {name.removesuffix(end): shape for name, shape in own.items() if name.endswith(end) and len(shape) > 1}

    firsts = {name: shape for name, shape in ending(".conv1.weight").items() if ".resnets." in name}
    firsts |= {name: shape for name, shape in ending(".in_layers.2.weight").items() if "block" in name}
    queries, keys = ending(".attn1.to_q.weight"), ending(".attn1.to_k.weight")
    channels = first("input_blocks.0.0.weight", "conv_in.weight", axis=1)
    if not channels or not firsts:
        return None
    return Outline(
        channels=channels,
        out=first("out.2.weight", "conv_out.weight", axis=0),
        context=tuple(sorted({shape[1] for shape in ending(".attn2.to_k.weight").values()})),
        added=first("label_emb.0.0.weight", "add_embedding.linear_1.weight", axis=1),
        guided=first("time_embed.cond_proj.weight", "time_embedding.cond_proj.weight", axis=1),
        resnets=tuple(sorted((shape[1], shape[0]) for shape in firsts.values())),
        attentions=tuple(sorted((shape[0], keys.get(name, (0, 0))[1]) for name, shape in queries.items())),
    )


@functools.cache
def known() -> Mapping[str, Outline]:
    """Outline of every architecture that a file with one UNet can be of: not of those that have a ControlNet beside it."""
    found = {name: architectures.configs(name) for name in architectures.names()}
    return {name: of_config(configs["unet"]) for name, configs in found.items() if "controlnet" not in configs}


def same(found: Outline) -> list[str]:
    """Architectures of exactly this outline."""
    return [name for name, each in known().items() if each == found]


def nearest(found: Outline) -> tuple[str, list[str]]:
    """The architecture that differs in the fewest attributes, and in which."""
    return min(((name, found.differences(each)) for name, each in known().items()), key=lambda pair: len(pair[1]))


#: What UNet2DConditionModel takes where its config is silent.
_SILENT: Mapping[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}


def of_config(config: Mapping[str, Any]) -> Outline:
    """The outline that a UNet2DConditionModel of this config has."""
    config = {**_SILENT, **config}
    context = config.get("cross_attention_dim", 1280)
    text = config.get("addition_embed_type") == "text_time"
    blocks = list(_blocks(config))
    cross = _each(config.get("only_cross_attention", False), len(config["block_out_channels"]))
    width = context if isinstance(context, int) else context[0]
    return Outline(
        channels=int(config.get("in_channels", 4)),
        out=int(config.get("out_channels", 4)),
        context=tuple(sorted({context} if isinstance(context, int) else set(context))) if any(b[2] for b in blocks) else (),
        added=int(config.get("projection_class_embeddings_input_dim") or 0) if text else 0,
        guided=int(config.get("time_cond_proj_dim") or 0),
        resnets=tuple(sorted(pair for _, pairs, _ in blocks for pair in pairs)),
        attentions=tuple(
            sorted((pairs[0][1], width if cross[stage] else pairs[0][1]) for stage, pairs, depth in blocks for _ in range(depth))
        ),
    )


def _blocks(config: Mapping[str, Any]) -> Iterator[tuple[int, list[tuple[int, int]], int]]:
    """Block by block: its stage counted from the outside, (inputs, outputs) of its resnets, and its transformer layers."""
    widths = list(config["block_out_channels"])
    layers = _each(config.get("layers_per_block", 2), len(widths))
    depths = _each(config.get("transformer_layers_per_block", 1), len(widths))
    last = len(widths) - 1
    before = widths[0]
    for stage, (kind, width) in enumerate(zip(config["down_block_types"], widths, strict=True)):
        pairs = [(before if layer == 0 else width, width) for layer in range(layers[stage])]
        yield stage, pairs, sum(_each(depths[stage], layers[stage])) * ("CrossAttn" in kind)
        before = width
    middle = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    if middle is not None:
        attends = middle.endswith("CrossAttn")
        yield last, [(before, before)] * (1 + attends), sum(_each(depths[-1], 1)) * attends
    upward = config.get("reverse_transformer_layers_per_block") or depths[::-1]
    for index, kind in enumerate(config["up_block_types"]):
        stage = last - index
        width, count = widths[stage], layers[stage] + 1
        skips = [width] * (count - 1) + [widths[max(stage - 1, 0)]]
        pairs = [((before if layer == 0 else width) + skip, width) for layer, skip in enumerate(skips)]
        yield stage, pairs, sum(_each(upward[index], count)) * ("CrossAttn" in kind)
        before = width


def _each(value: Any, count: int) -> list[Any]:  # noqa: ANN401 - a config's value
    """One value for every stage or layer, as a list of them."""
    return list(value) if isinstance(value, list | tuple) else [value] * count


def vae(shapes: Shapes) -> dict[str, Any]:
    """Fields of an AutoencoderKL's config that its weights' shapes tell, in either layout; none where no such VAE is whole."""
    start = next((start for start in ("first_stage_model.", "vae.") if any(name.startswith(start) for name in shapes)), "")
    own = {name.removeprefix(start): tuple(shape) for name, shape in shapes.items() if name.startswith(start)}
    first = re.compile(r"encoder\.(?:down_blocks|down)\.(\d+)\.(?:resnets|block)\.(\d+)\.conv1\.weight")
    found = ((first.fullmatch(name), shape) for name, shape in own.items())
    blocks = {tuple(map(int, match.groups())): shape[0] for match, shape in found if match and shape}
    stages = range(1 + max((stage for stage, _ in blocks), default=-1))
    ends = ("encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.weight")
    if not blocks or any((stage, 0) not in blocks for stage in stages) or any(len(own.get(end, ())) < 2 for end in ends):
        return {}
    widths = [blocks[stage, 0] for stage in stages]
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": 1 + max(layer for _, layer in blocks),
        "latent_channels": own["decoder.conv_in.weight"][1],
        "in_channels": own["encoder.conv_in.weight"][1],
        "out_channels": own["decoder.conv_out.weight"][0],
        "use_quant_conv": "quant_conv.weight" in own,
        "use_post_quant_conv": "post_quant_conv.weight" in own,
    }


def vae_differences(shapes: Shapes, config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields in which the VAE of a file is another than an AutoencoderKL's config says."""
    silent = {"use_quant_conv": True, "use_post_quant_conv": True, "layers_per_block": 1, "in_channels": 3, "out_channels": 3}
    return {name: value for name, value in vae(shapes).items() if config.get(name, silent.get(name)) != value}
