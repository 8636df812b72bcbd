"""Stable Diffusion XL and every cut of it, such as KOALA, SSD-1B and Vega: two CLIP text encoders, pooled text, image size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engines.signature import Port
from exporter.families import plain
from exporter.families.unets.unet import LatentDiffusion, conditioned

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Sdxl"]


class Sdxl(LatentDiffusion):
    """UNet2DConditionModel with `text_time` embedding on two text towers, as StableDiffusionXLPipeline runs it.

    Where the model says `force_zeros_for_empty_prompt`, an empty negative prompt becomes zeros inside the text graphs. diffusers
    does so when no negative prompt is given, and encodes one that is given as ""; here both are the former.
    """

    towers = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}  # noqa: RUF012 - a Mapping by its declared type
    pipeline_class = "StableDiffusionXLPipeline"
    penultimate = True

    @staticmethod
    def claims(configs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Tell by the configs: a UNet with size embedding, two text towers, a VAE."""
        unet = configs.get("unet", {})
        return (
            unet.get("_class_name", "UNet2DConditionModel") == "UNet2DConditionModel"
            and unet.get("addition_embed_type") == "text_time"
            and {"unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"} <= configs.keys()
            and plain(configs)
        )

    def conditioning(self, tower: str) -> Sequence[Port]:
        """Hidden states before the last layer; of the second tower the projected pooled state too."""
        states = [self.length(tower), self.width(tower)]
        if tower == "text_encoder":
            return [conditioned("prompt_embeds", self.branches, *states)]
        return [
            conditioned("prompt_embeds_2", self.branches, *states),
            conditioned("pooled_prompt_embeds", self.branches, int(self.configs[tower].get("projection_dim", 512))),
        ]

    def text(self, tower: str, network: nn.Module) -> nn.Module:
        """Wrap one text tower."""
        import torch  # noqa: PLC0415

        from exporter.families.unets.text import TextEncoder  # noqa: PLC0415 - torch

        zeros = self.configs["model_index"].get("force_zeros_for_empty_prompt", True) and self.branches == 2
        prompts = self.recipe.prompts
        empty = torch.tensor(self.empty(tower)) if zeros or prompts.weights == "compel" else None
        return TextEncoder(
            network, penultimate=self.penultimate, pooled=tower == "text_encoder_2", empty=empty, zeros=zeros, prompts=prompts
        )

    def denoiser(self, network: nn.Module) -> nn.Module:
        """Wrap the UNet."""
        from exporter.families.unets.wrappers import DenoiserXL  # noqa: PLC0415 - torch

        return DenoiserXL(network, self.recipe.sampler.guidance, factor=self.factor, depth=self.recipe.sampler.depth)

    def pipeline_options(self) -> Mapping[str, Any]:
        """No watermark: it is drawn onto the picture, not by the model."""
        zeros = self.configs["model_index"].get("force_zeros_for_empty_prompt", True)
        return {"force_zeros_for_empty_prompt": zeros, "add_watermarker": False}
