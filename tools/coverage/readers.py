"""Micro models whose prompts a language model reads, and others whose pipelines pack or list what they keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
import torch
from diffusers import DiffusionPipeline

from tools.coverage import pipelines
from tools.coverage.parts import CHAT, alive, flow, language_model, qwen_vl, spelling_tokenizer, t5gemma, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def z_image() -> DiffusionPipeline:
    """Qwen 3; latents and prompts are lists, times run the other way, and the output is negated."""
    network = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2,
        n_kv_heads=2, cap_feat_dim=32, axes_dims=[8, 4, 4], axes_lens=[1024, 64, 64],
    )  # fmt: skip
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", CHAT)
    autoencoder = vae(shift_factor=0.1159, scaling_factor=0.3611)
    return diffusers.ZImagePipeline(flow(), autoencoder, language_model("Qwen3"), tokenizer, alive(network))


def flux2_klein() -> DiffusionPipeline:
    """Three layers of Qwen 3, latents of 2 × 2 cells, and times that depend on size and steps."""
    network = diffusers.Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=96, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=4, layers_per_block=1,
    )  # fmt: skip
    reader = language_model("Qwen3", num_hidden_layers=28)  # of which the pipeline takes the 9th, 18th and 27th
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", CHAT)
    scheduler = flow(use_dynamic_shifting=True)
    return diffusers.Flux2KleinPipeline(scheduler, alive(autoencoder), reader, tokenizer, alive(network))


def ernie_image() -> DiffusionPipeline:
    """A language model's last state but one of each prompt, as long as it is, over FLUX.2's latents."""
    made: Any = flux2_klein()
    network = diffusers.ErnieImageTransformer2DModel(
        hidden_size=32, num_attention_heads=2, num_layers=2, ffn_hidden_size=64, in_channels=16, out_channels=16, text_in_dim=32,
        rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    text = language_model("Qwen3"), spelling_tokenizer("Qwen2Tokenizer", more=["<pad>"])
    return diffusers.ErnieImagePipeline(alive(network), made.vae, *text, flow(shift=3.0))


def ideogram4() -> DiffusionPipeline:
    """Thirteen layers of Qwen 3's hidden states in one row with the picture, and a network of its own for guidance."""
    made: Any = flux2_klein()

    def network() -> Any:  # noqa: ANN401 - a network of either library
        return alive(
            diffusers.Ideogram4Transformer2DModel(
                in_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2, intermediate_size=32, adaln_dim=16,
                llm_features_dim=13 * 32, mrope_section=(4, 2, 2),
            )
        )  # fmt: skip

    reader = qwen_vl("Qwen3VL", num_hidden_layers=36).model
    negative = network()
    with torch.no_grad():
        negative.input_proj.weight.mul_(0.9)
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", CHAT)
    return diffusers.Ideogram4Pipeline(flow(), made.vae, reader, tokenizer, network(), negative)


def flux_kontext() -> DiffusionPipeline:
    """FLUX.1's networks under the pipeline that may be given a picture."""
    made = pipelines.flux(guided=True)
    return diffusers.FluxKontextPipeline(**{**made.components, "image_encoder": None, "feature_extractor": None})


def prx() -> DiffusionPipeline:
    """T5Gemma, whose texts are cleaned."""
    network = diffusers.PRXTransformer2DModel(
        in_channels=4, patch_size=2, context_in_dim=32, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=2, axes_dim=[8, 8]
    )
    tokenizer = spelling_tokenizer("GemmaTokenizer")
    tokenizer.model_max_length = 64
    return diffusers.PRXPipeline(alive(network), flow(shift=3.0), t5gemma(), tokenizer, vae(**pipelines.SHIFTED))


def cogview4() -> DiffusionPipeline:
    """GLM, whose texts are padded on the left to multiples of 16."""
    network = diffusers.CogView4Transformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        text_embed_dim=32, time_embed_dim=8, condition_dim=4, rope_axes_dim=(16, 16), sample_size=16,
    )  # fmt: skip
    tokenizer = spelling_tokenizer("GemmaTokenizer")
    tokenizer.padding_side = "left"
    scheduler = flow(base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear")
    return diffusers.CogView4Pipeline(tokenizer, language_model("Glm"), vae(), alive(network), scheduler)


def _video_vae(downsampled: int = 1) -> Any:  # noqa: ANN401 - diffusers'
    return alive(
        diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1] * downsampled + [2],
            num_res_blocks=1,
            temperal_downsample=[False] * downsampled,
            latents_mean=[0.1] * 4,
            latents_std=[1.1, 0.9, 1.2, 1.0],
        )
    )


def qwen_image(downsampled: int = 1) -> DiffusionPipeline:
    """Qwen 2.5 VL, whose texts are as long as they are; and the VAE of a video, which halves the sides so many times."""
    network = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", CHAT)
    reader = qwen_vl("Qwen2_5_VL")
    return diffusers.QwenImagePipeline(
        flow(use_dynamic_shifting=True), _video_vae(downsampled), reader, tokenizer, alive(network)
    )


def krea2() -> DiffusionPipeline:
    """Two layers of Qwen 3 VL, with the padding before the end of the template."""
    network = diffusers.Krea2Transformer2DModel(
        in_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2, num_key_value_heads=1, intermediate_size=48,
        timestep_embed_dim=16, text_hidden_dim=32, num_text_layers=2, text_num_attention_heads=2, text_num_key_value_heads=2,
        text_intermediate_size=48, num_layerwise_text_blocks=1, num_refiner_text_blocks=1, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", CHAT)
    return diffusers.Krea2Pipeline(
        flow(use_dynamic_shifting=True), _video_vae(), qwen_vl("Qwen3VL").model, tokenizer, alive(network), (1, 2)
    )


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "z-image": z_image,
    "flux2-klein": flux2_klein,
    "flux2-klein-pictured": flux2_klein,
    "flux-kontext": flux_kontext,
    "flux-kontext-pictured": flux_kontext,
    "prx": prx,
    "cogview4": cogview4,
    "qwenimage": qwen_image,
    "krea2": krea2,
    "ideogram4": ideogram4,
}
