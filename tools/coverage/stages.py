"""Micro models of pipelines of two stages: the first draws an embedding of the picture, the second the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
import torch
import transformers
from diffusers import DiffusionPipeline

from tools.coverage.parts import alive, clip, clip_tokenizer

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def kandinsky22() -> DiffusionPipeline:
    """A transformer that draws CLIP's embedding of the picture, and a UNet that takes nothing else."""
    width = 32
    prior = diffusers.PriorTransformer(num_attention_heads=2, attention_head_dim=8, num_layers=2, embedding_dim=width)
    torch.nn.init.ones_(alive(prior).clip_std)
    pictures = transformers.CLIPVisionConfig(
        hidden_size=32, projection_dim=width, num_hidden_layers=1, num_attention_heads=4, image_size=32, patch_size=16,
        intermediate_size=37,
    )  # fmt: skip
    network = diffusers.UNet2DConditionModel(
        in_channels=4, out_channels=8, addition_embed_type="image", encoder_hid_dim=width, encoder_hid_dim_type="image_proj",
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
    return diffusers.KandinskyV22CombinedPipeline(
        alive(network), diffusers.DDPMScheduler(clip_sample=False, beta_end=0.002),  # more of a random network makes huge latents
        alive(decoder), prior, alive(transformers.CLIPVisionModelWithProjection(pictures)), clip(width, projection=True),
        clip_tokenizer(), diffusers.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        transformers.CLIPImageProcessorPil(crop_size=32, size={"shortest_edge": 32}),
    )  # fmt: skip


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {"kandinsky22": kandinsky22}
