"""Micro models of pipelines of two stages: the first draws an embedding of the picture, the second the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import diffusers as library
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel, WuerstchenDiffNeXt, WuerstchenPrior
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

from tools.coverage.parts import VOCABULARY, alive, clip, clip_tokenizer, sentence_tokenizer

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
#: Numbers of the embedding that a first stage draws, and of a text.
_EMBEDDED = 32


def kandinsky22(kind: str = "KandinskyV22CombinedPipeline", channels: int = 4) -> DiffusionPipeline:
    """A transformer that draws CLIP's embedding of the picture, and a UNet of so many channels that takes nothing else."""
    networks = _kandinsky(in_channels=channels, addition_embed_type="image", encoder_hid_dim_type="image_proj")
    return getattr(diffusers, kind)(**networks)


def kandinsky(kind: str = "KandinskyCombinedPipeline", channels: int = 4) -> DiffusionPipeline:
    """The same of Kandinsky 2.1, whose UNet is given the text as well, read by an encoder of its own."""
    config = MCLIPConfig(
        transformerDimSize=_EMBEDDED, imageDimSize=_EMBEDDED, vocab_size=VOCABULARY, hidden_size=_EMBEDDED, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=37, max_position_embeddings=128,
    )  # fmt: skip
    networks = _kandinsky(in_channels=channels, addition_embed_type="text_image", encoder_hid_dim_type="text_image_proj")
    text = {"text_encoder": alive(MultilingualCLIP(config)), "tokenizer": sentence_tokenizer("XLMRobertaTokenizer")}
    return getattr(diffusers, kind)(**text, **networks)


def _kandinsky(**own: Any) -> dict[str, Any]:  # noqa: ANN401 - of a UNet's config, and what stages are made of
    """Both stages' components; `own` of the second's UNet."""
    width = _EMBEDDED
    prior = diffusers.PriorTransformer(num_attention_heads=2, attention_head_dim=8, num_layers=2, embedding_dim=width)
    torch.nn.init.ones_(alive(prior).clip_std)
    pictures = transformers.CLIPVisionConfig(
        hidden_size=32, projection_dim=width, num_hidden_layers=1, num_attention_heads=4, image_size=32, patch_size=16,
        intermediate_size=37,
    )  # fmt: skip
    network = diffusers.UNet2DConditionModel(
        **own, out_channels=8, encoder_hid_dim=width,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), block_out_channels=(8, 16), layers_per_block=1,
        cross_attention_dim=32, attention_head_dim=4, resnet_time_scale_shift="scale_shift", norm_num_groups=4,
    )  # fmt: skip
    decoder = diffusers.VQModel(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"), in_channels=3,
        latent_channels=4, layers_per_block=1, norm_num_groups=4, norm_type="spatial", num_vq_embeddings=12, out_channels=3,
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), vq_embed_dim=4,
    )  # fmt: skip
    return {
        "unet": alive(network), "movq": alive(decoder),
        "scheduler": diffusers.DDPMScheduler(clip_sample=False, beta_end=0.001),  # more of a random network makes huge latents
        "prior_prior": prior, "prior_image_encoder": alive(transformers.CLIPVisionModelWithProjection(pictures)),
        "prior_text_encoder": clip(width, projection=True), "prior_tokenizer": clip_tokenizer(),
        "prior_scheduler": diffusers.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        "prior_image_processor": transformers.CLIPImageProcessorPil(crop_size=32, size={"shortest_edge": 32}),
    }  # fmt: skip


def stable_cascade() -> DiffusionPipeline:
    """A UNet that draws a few cells of the picture, and another that draws its latent with them, for Paella's decoder."""

    def unet(**own: Any) -> Any:  # noqa: ANN401 - diffusers'
        small = {
            "timestep_ratio_embedding_dim": 8, "conditioning_dim": 16, "block_out_channels": (16, 16),
            "num_attention_heads": (2, 2), "down_num_layers_per_block": (1, 1), "up_num_layers_per_block": (1, 1),
            "clip_text_pooled_in_channels": 32, "dropout": (0.0, 0.0),
        }  # fmt: skip
        return alive(diffusers.StableCascadeUNet(**{**small, **own}))

    prior = unet(in_channels=4, out_channels=4, clip_text_in_channels=32, clip_image_in_channels=32, switch_level=(False,))
    decoder = unet(
        in_channels=4, out_channels=4, patch_size=2, effnet_in_channels=4, pixel_mapper_in_channels=3,
        down_blocks_repeat_mappers=(1, 1), timestep_conditioning_type=("sca",),
    )  # fmt: skip
    text, reader = clip(projection=True), clip_tokenizer()
    return diffusers.StableCascadeCombinedPipeline(
        reader, text, decoder, diffusers.DDPMWuerstchenScheduler(), paella(), prior, text, reader,
        diffusers.DDPMWuerstchenScheduler(),
    )  # fmt: skip


def wuerstchen() -> DiffusionPipeline:
    """Würstchen's two stages, each with a text encoder of its own, over Paella's decoder."""
    prior = WuerstchenPrior(c_in=4, c=16, c_cond=32, c_r=8, depth=1, nhead=2, dropout=0.0)
    decoder = WuerstchenDiffNeXt(
        c_cond=32, c_hidden=[8, 16], nhead=[-1, 2], blocks=[1, 1], level_config=["CT", "CTA"], inject_effnet=[False, True],
        effnet_embd=4, clip_embd=32, c_r=8, dropout=0.0,
    )  # fmt: skip
    with torch.no_grad():  # both divide by something of their own answers, which shall not be near 0
        for layer in (alive(prior).out[1], alive(decoder).clf[1]):
            layer.weight.mul_(0.1)
            layer.bias.mul_(0.1)
    return diffusers.WuerstchenCombinedPipeline(
        clip_tokenizer(), clip(), decoder, diffusers.DDPMWuerstchenScheduler(), paella(), clip_tokenizer("!"), clip(), prior,
        diffusers.DDPMWuerstchenScheduler(),
    )  # fmt: skip


def paella() -> Any:  # noqa: ANN401 - a network of diffusers
    """Paella's autoencoder, whose pictures are grey even of a random network's latents, which are a hundred times as large."""
    made = alive(PaellaVQModel(levels=2, bottleneck_blocks=1, embed_dim=16, num_vq_embeddings=12))
    with torch.no_grad():
        made.out_block[0].weight.mul_(0.02)
        made.out_block[0].bias.fill_(0.5)
    return made


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "kandinsky": kandinsky,
    "kandinsky-inpaint": partial(kandinsky, "KandinskyInpaintCombinedPipeline", 9),
    "kandinsky22": kandinsky22,
    "kandinsky22-inpaint": partial(kandinsky22, "KandinskyV22InpaintCombinedPipeline", 9),
    "cascade": stable_cascade,
    "wuerstchen": wuerstchen,
}
