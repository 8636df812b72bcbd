"""Micro models that read a picture as they read a prompt, and adapters for them: real classes, random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers as library
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

from tools.coverage import conditioned, controlnets, unclip, unets
from tools.coverage.clip_images import PROJECTED, WIDTH, image_encoder, image_processor
from tools.coverage.parts import alive, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
#: Tokens that an adapter makes of a picture: a plain one, and one of `plus`.
_TOKENS, _QUERIES = 4, 6
#: Of a resampler: layers, and the width of an attention head, both of which diffusers' code has as numbers.
_LAYERS, _HEAD = 4, 64


def image_variation() -> DiffusionPipeline:
    """CLIP's image tower in the place of the text's."""
    return diffusers.StableDiffusionImageVariationPipeline(
        vae(), image_encoder(), conditioned.unet(cross_attention_dim=PROJECTED), diffusers.DDIMScheduler(clip_sample=False),
        None, image_processor(), requires_safety_checker=False,
    )  # fmt: skip


def ip_adapter(unet: Any, *, plus: bool = False, width: int | None = None) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """An adapter for a UNet, by the names of published files; `width` of the text that it was trained beside, if another."""
    generator, wide = torch.Generator().manual_seed(5), width or int(unet.config.cross_attention_dim)

    def made(*shape: int) -> torch.Tensor:
        scale = torch.Size(shape[1:]).numel() ** -0.5 if len(shape) > 1 else 0.1
        return torch.randn(shape, generator=generator) * scale

    def linear(name: str, out: int, into: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": made(out, into), f"{name}.bias": made(out)}

    def norm(name: str, size: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 1 + made(size), f"{name}.bias": made(size)}

    if plus:
        found = {"latents": made(1, _QUERIES, _HEAD), **linear("proj_in", _HEAD, WIDTH), **linear("proj_out", wide, _HEAD)}
        found |= norm("norm_out", wide)
        for layer in (f"layers.{number}" for number in range(_LAYERS)):
            found |= {**norm(f"{layer}.0.norm1", _HEAD), **norm(f"{layer}.0.norm2", _HEAD), **norm(f"{layer}.1.0", _HEAD)}
            found |= {f"{layer}.0.to_q.weight": made(_HEAD, _HEAD), f"{layer}.0.to_kv.weight": made(2 * _HEAD, _HEAD)}
            found |= {f"{layer}.0.to_out.weight": made(_HEAD, _HEAD)}
            found |= {f"{layer}.1.1.weight": made(4 * _HEAD, _HEAD), f"{layer}.1.3.weight": made(_HEAD, 4 * _HEAD)}
    else:
        found = {**linear("proj", _TOKENS * wide, PROJECTED), **norm("norm", wide)}
    state = {f"image_proj.{name}": value for name, value in found.items()}
    layers = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, layer in enumerate(layers):
        inner = int(unet.get_submodule(layer).to_q.out_features)
        for each in ("to_k_ip", "to_v_ip"):
            state[f"ip_adapter.{2 * number + 1}.{each}.weight"] = made(inner, wide)
    return state


def write_ip_adapter(
    folder: Path, state: Mapping[str, torch.Tensor], weight_name: str = "ip-adapter.safetensors"
) -> dict[str, str]:
    """Write an adapter and its image encoder as h94/IP-Adapter has them, and return the fields of a recipe for it."""
    (folder / "models").mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "models" / weight_name)
    image_encoder().save_pretrained(folder / "models" / "image_encoder")
    return {"source": str(folder), "subfolder": "models", "weight_name": weight_name}


def instruct_pix2pix_xl() -> DiffusionPipeline:
    """SDXL's UNet of eight channels, the second four of them the picture, and three branches of guidance."""
    made: Any = unets.stable_diffusion_xl()
    network = diffusers.UNet2DConditionModel.from_config(made.unet.config, in_channels=8)
    return controlnets.under("StableDiffusionXLInstructPix2PixPipeline", made, unet=alive(network))


def stable_diffusion_xl_adapter() -> DiffusionPipeline:
    """Features of a picture, added to the UNet's own, with two text encoders and sizes among the conditions."""
    fields = {"channels": [8, 16], "num_res_blocks": 1, "downscale_factor": 4, "adapter_type": "full_adapter_xl"}
    adapter = alive(diffusers.T2IAdapter(**fields))
    return controlnets.under("StableDiffusionXLAdapterPipeline", unets.stable_diffusion_xl(), adapter=adapter)


#: Name → what makes the pipeline, which may be given an adapter.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "stable-diffusion-image-variation": image_variation,
    **unclip.MADE,
    "instruct-pix2pix": conditioned.instruct_pix2pix,
    "instruct-pix2pix-xl": instruct_pix2pix_xl,
    "t2i-adapter": conditioned.stable_diffusion_adapter,
    "t2i-adapter-xl": stable_diffusion_xl_adapter,
    "ip-adapter": unets.stable_diffusion,
    "ip-adapter-plus": unets.stable_diffusion,
    "ip-adapter-xl": unets.stable_diffusion_xl,
    "ip-adapter-xl-plus": unets.stable_diffusion_xl,
    "ip-adapter-controlnet": conditioned.stable_diffusion_controlnet,
}
#: Of those with an adapter, what makes it for a UNet.
ADAPTED: Mapping[str, Callable[[Any], dict[str, torch.Tensor]]] = {
    name: partial(ip_adapter, plus=name.endswith("plus")) for name in MADE if name.startswith("ip-adapter")
}
