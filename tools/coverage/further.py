"""More micro models: pipelines that keep lists, perturb attention, or read other language models."""

from __future__ import annotations

import diffusers
import transformers
from diffusers import DiffusionPipeline

from tools.coverage import parts, pipelines
from tools.coverage.parts import (
    CHAT,
    alive,
    clip,
    clip_tokenizer,
    flow,
    language_model,
    spelling_tokenizer,
    t5,
    t5_tokenizer,
    vae,
)


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


def hunyuan() -> DiffusionPipeline:
    """BERT and T5, encoded by two calls."""
    network = diffusers.HunyuanDiT2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, in_channels=4,
        cross_attention_dim=32, cross_attention_dim_t5=32, pooled_projection_dim=16, hidden_size=24,
    )  # fmt: skip
    config = transformers.BertConfig(
        vocab_size=parts.VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37
    )
    signs = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs)]
    tokenizer = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    return diffusers.HunyuanDiTPipeline(
        vae(4), alive(transformers.BertModel(config)), tokenizer, alive(network), diffusers.DDPMScheduler(), None, None,
        requires_safety_checker=False, text_encoder_2=t5(), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


def kandinsky3() -> DiffusionPipeline:
    """T5 with masked states, and a decoder called movq."""
    network = diffusers.Kandinsky3UNet(
        in_channels=4, time_embedding_dim=4, groups=2, attention_head_dim=4, layers_per_block=3,
        block_out_channels=(8, 16, 32, 64), cross_attention_dim=4, encoder_hid_dim=32,
    )  # fmt: skip
    movq = diffusers.VQModel(
        block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        latent_channels=4, norm_num_groups=4, norm_type="spatial", num_vq_embeddings=12,
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3, vq_embed_dim=4,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    return diffusers.Kandinsky3Pipeline(t5_tokenizer(), t5(), alive(network), scheduler, alive(movq))


def _unet(**changes: object) -> diffusers.UNet2DConditionModel:
    config = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "sample_size": 32,
    }
    return alive(diffusers.UNet2DConditionModel(**config | changes))


def stable_diffusion_pag() -> DiffusionPipeline:
    """Stable Diffusion with perturbed attention in its middle."""
    return diffusers.StableDiffusionPAGPipeline(
        vae(), clip(), clip_tokenizer(), _unet(), diffusers.DDIMScheduler(clip_sample=False), None, None,
        requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl_pag() -> DiffusionPipeline:
    """SDXL with it."""
    network = _unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=64, transformer_layers_per_block=(1, 2), use_linear_projection=True,
    )  # fmt: skip
    return diffusers.StableDiffusionXLPAGPipeline(
        vae(), clip(), clip(projection=True), clip_tokenizer(), clip_tokenizer("!"), network, diffusers.EulerDiscreteScheduler(),
        add_watermarker=False,
    )  # fmt: skip


def perturbed(name: str) -> DiffusionPipeline:
    """A pipeline's networks under the one that perturbs their attention."""
    made = (pipelines.MADE | MADE)[name]()
    kind = getattr(diffusers, type(made).__name__.replace("Pipeline", "PAGPipeline"))
    depth = "0" if name == "stable-diffusion-3" else "blocks.0" if name == "sana" else "blocks.1"
    layers = {"stable-diffusion-3": "blocks.0", "sana": "transformer_blocks.0"}.get(name, depth)
    return kind(**made.components, pag_applied_layers=[layers])


#: Name → what makes the pipeline.
MADE = {
    "z-image": z_image,
    "flux2-klein": flux2_klein,
    "hunyuan": hunyuan,
    "kandinsky3": kandinsky3,
    "stable-diffusion-pag": stable_diffusion_pag,
    "stable-diffusion-xl-pag": stable_diffusion_xl_pag,
}
