"""Stable Diffusion 1.x and 2.x, and every cut of them: one CLIP text encoder, its last hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engines.signature import Port
from exporter.families import plain
from exporter.families.unets.unet import LatentDiffusion, conditioned

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Sd"]


class Sd(LatentDiffusion):
    """UNet2DConditionModel on the last hidden states of one text tower, as StableDiffusionPipeline runs it."""

    towers = {"text_encoder": "tokenizer"}  # noqa: RUF012 - a Mapping by its declared type
    pipeline_class = "StableDiffusionPipeline"
    begins = False
    rescales_from_images = False

    @staticmethod
    def claims(configs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Tell by the configs: a UNet without size embedding, one text tower, a VAE."""
        unet = configs.get("unet", {})
        return (
            unet.get("_class_name", "UNet2DConditionModel") == "UNet2DConditionModel"
            and unet.get("addition_embed_type") is None
            and {"unet", "vae", "text_encoder", "tokenizer"} <= configs.keys()
            and "text_encoder_2" not in configs
            and plain(configs)
        )

    def conditioning(self, tower: str) -> Sequence[Port]:
        """Hidden states after the final norm."""
        return [conditioned("prompt_embeds", self.branches, self.length(tower), self.width(tower))]

    def text(self, tower: str, network: nn.Module) -> nn.Module:
        """Wrap the text tower."""
        import torch  # noqa: PLC0415

        from exporter.families.unets.text import TextEncoder  # noqa: PLC0415 - torch

        prompts = self.recipe.prompts
        empty = torch.tensor(self.empty(tower)) if prompts.weights == "compel" else None
        return TextEncoder(network, penultimate=self.penultimate, pooled=False, empty=empty, prompts=prompts)

    def denoiser(self, network: nn.Module) -> nn.Module:
        """Wrap the UNet."""
        from exporter.families.unets.wrappers import Denoiser  # noqa: PLC0415 - torch

        return Denoiser(network, self.recipe.sampler.guidance, depth=self.recipe.sampler.depth)

    def pipeline_options(self) -> Mapping[str, Any]:
        """No safety checker: it is a filter behind the model, not part of it."""
        return {"safety_checker": None, "requires_safety_checker": False}
