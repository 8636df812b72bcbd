"""Micro models of pipelines in none of diffusers' lists that nobody had tried while the followed family was written."""

from __future__ import annotations

import string
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers as library
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion as latent_diffusion
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

from tools.coverage.parts import (
    CHAT,
    VOCABULARY,
    alive,
    bert,
    clip,
    clip_tokenizer,
    flow,
    qwen_vl,
    spelling_tokenizer,
    t5,
    t5_tokenizer,
    vae,
)  # fmt: skip
from tools.coverage.unets import unet

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def hunyuan_image(guider: Any = None, **changes: Any) -> DiffusionPipeline:  # noqa: ANN401 - diffusers', and of its network's config
    """Qwen 2.5 VL, and ByT5 for words within quotes, whose own tokens are told apart by masks; guidance is a component."""
    network = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, text_embed_dim=32, text_embed_2_dim=32, rope_axes_dim=(8, 8), **changes,
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32), layers_per_block=1,
        spatial_compression_ratio=2, sample_size=32, scaling_factor=0.75,
    )  # fmt: skip
    reader = qwen_vl("Qwen2_5_VL", num_hidden_layers=3)  # of which the pipeline takes the last state but two
    glyphs = t5(32)  # of ByT5's ids, which are bytes
    glyphs.resize_token_embeddings(384)
    return diffusers.HunyuanImagePipeline(
        flow(shift=5.0), alive(autoencoder), reader, spelling_tokenizer("Qwen2Tokenizer", CHAT), alive(glyphs),
        transformers.ByT5Tokenizer(), alive(network), guider,
    )  # fmt: skip


def hunyuan_image_guided() -> DiffusionPipeline:
    """With a guider as the published model has it: two branches, of which a running mean is taken from the sixth step on."""
    return hunyuan_image(diffusers.AdaptiveProjectedMixGuidance(guidance_scale=3.5, adaptive_projected_guidance_start_step=0))


def hunyuan_image_classifier_free() -> DiffusionPipeline:
    """With a guider that is classifier-free guidance."""
    return hunyuan_image(diffusers.ClassifierFreeGuidance(guidance_scale=4.0))


def hunyuan_image_distilled() -> DiffusionPipeline:
    """As the published model that was distilled: the scale is the network's, which is told the next time too."""
    return hunyuan_image(guidance_embeds=True, use_meanflow=True)


def _long_clip() -> Any:  # noqa: ANN401 - transformers'
    """CLIP's text encoder for more than 77 ids."""
    made = clip(projection=True)
    config = transformers.CLIPTextConfig(**{**made.config.to_dict(), "max_position_embeddings": 248})
    return alive(transformers.CLIPTextModelWithProjection(config))


def hidream_image() -> DiffusionPipeline:
    """CLIP twice, T5, and every layer of Llama; experts that choose their tokens, and an area that is the pipeline's own."""
    network = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_channels=[32, 32], text_emb_dim=64, num_routed_experts=4, num_activated_experts=2,
        axes_dims_rope=(4, 2, 2), max_resolution=(128, 128), llama_layers=(0, 1),
    )  # fmt: skip
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    llama = alive(transformers.LlamaForCausalLM(config))
    readers = _long_clip(), clip_tokenizer(), _long_clip(), clip_tokenizer(), t5(), t5_tokenizer()
    reader = spelling_tokenizer("Qwen2Tokenizer")
    return diffusers.HiDreamImagePipeline(
        flow(shift=3.0), vae(1, shift_factor=0.1159, scaling_factor=0.3611), *readers, llama, reader, alive(network)
    )


#: Pieces of more than a character, the likeliest first.
MERGED = ("re", "▁a", "ci", "red", "cir", "▁red")


def pieces(**normalizer: Any) -> Path:  # noqa: ANN401 - of the file
    """A model of SentencePiece over bytes, single characters and a few longer pieces, with merges, as ChatGLM's is one."""
    made = sentencepiece.ModelProto()  # pyright: ignore[reportAttributeAccessIssue] - protobuf makes it
    made.trainer_spec.model_type, made.trainer_spec.byte_fallback = 2, True
    made.normalizer_spec.name, made.normalizer_spec.remove_extra_whitespaces = "identity", False
    for name, value in normalizer.items():
        setattr(made.normalizer_spec, name, value)
    special = [("<unk>", 2), ("<s>", 3), ("</s>", 3), *((f"<0x{number:02X}>", 6) for number in range(256))]
    signs = ((sign, 1) for sign in (*MERGED, "▁", *string.ascii_lowercase))
    for number, (piece, kind) in enumerate([*special, *signs]):
        made.pieces.add(piece=piece, score=-float(number) if kind == 1 else 0.0, type=kind)
    made.trainer_spec.vocab_size = len(made.pieces)
    file = Path(tempfile.mkdtemp()) / "tokenizer.model"
    file.write_bytes(made.SerializeToString())
    return file


def kolors() -> DiffusionPipeline:
    """SDXL's UNet over ChatGLM, with a tokenizer of diffusers' own, which reads a model of SentencePiece."""
    from diffusers.pipelines.kolors import text_encoder, tokenizer  # noqa: PLC0415 - it is written for an older torch, and told so

    reader = tokenizer.ChatGLMTokenizer(str(pieces()))
    config = text_encoder.ChatGLMConfig(
        num_layers=2, padded_vocab_size=reader.vocab_size, hidden_size=32, ffn_hidden_size=48, kv_channels=8,
        num_attention_heads=4, seq_length=512, multi_query_attention=True, multi_query_group_num=2, add_qkv_bias=True,
        original_rope=True,
    )  # fmt: skip
    network = unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 32,
        encoder_hid_dim=32, encoder_hid_dim_type="text_proj", transformer_layers_per_block=(1, 2), use_linear_projection=True,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_end=0.014, steps_offset=1)
    return diffusers.KolorsPipeline(vae(), alive(text_encoder.ChatGLMModel(config)), reader, network, scheduler)


def kandinsky5() -> DiffusionPipeline:
    """Qwen 2.5 VL without a mask, and CLIP; latents whose last axis are channels, and sizes that are the pipeline's own."""
    network = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=32, in_text_dim2=32, time_dim=32, out_visual_dim=4, model_dim=32, ff_dim=48,
        num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 6, 6),
    )  # fmt: skip
    reader = spelling_tokenizer("Qwen2Tokenizer", CHAT)
    return diffusers.Kandinsky5T2IPipeline(
        alive(network), vae(4), qwen_vl("Qwen2_5_VL"), reader, clip(), clip_tokenizer(), flow(shift=3.0)
    )


def latent_diffusion_text() -> DiffusionPipeline:
    """The first of them: a text encoder that is asked within the call, and a negative prompt that is always empty."""
    network = latent_diffusion.LDMBertModel(
        latent_diffusion.LDMBertConfig(
            vocab_size=VOCABULARY, encoder_layers=2, encoder_ffn_dim=37, encoder_attention_heads=4, head_dim=8, d_model=32
        )
    )
    scheduler = diffusers.DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear", steps_offset=1)
    return diffusers.LDMTextToImagePipeline(vae(4), alive(network), bert()[1], unet(), scheduler)


class Unguarded(diffusers.ModelMixin, diffusers.ConfigMixin):
    """What stands for Cosmos' guardrails, whose library is not installed here: everything passes."""

    config_name = "config.json"

    @library.configuration_utils.register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1))

    def check_text_safety(self, _prompt: str) -> bool:
        """Let it pass."""
        return True

    def check_video_safety(self, frames: Any) -> Any:  # noqa: ANN401 - numpy's
        """Let it pass."""
        return frames


def cosmos2() -> DiffusionPipeline:
    """A video's network and VAE for one frame; its steps are computed from the noise's level, and checked by guardrails."""
    network = diffusers.CosmosTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2, mlp_ratio=2, text_embed_dim=32,
        adaln_lora_dim=4, max_size=(4, 32, 32), extra_pos_embed_type=None, concat_padding_mask=False,  # which needs torchvision
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1] * 4, latents_std=[1.1, 0.9, 1.2, 1.0],
    )  # fmt: skip
    scheduler = flow(use_karras_sigmas=True)
    return diffusers.Cosmos2TextToImagePipeline(t5(), t5_tokenizer(), alive(network), alive(autoencoder), scheduler, Unguarded())


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "hunyuan-image": hunyuan_image,
    "hunyuan-image-guided": hunyuan_image_guided,
    "hunyuan-image-classifier-free": hunyuan_image_classifier_free,
    "hunyuan-image-distilled": hunyuan_image_distilled,
    "hidream-image": hidream_image,
    "kolors": kolors,
    "kandinsky5": kandinsky5,
    "latent-diffusion": latent_diffusion_text,
    "cosmos2": cosmos2,
}
