"""Tiny models in diffusers format, made here: real classes, random weights, a real (small) CLIP vocabulary."""

import json
from pathlib import Path

#: Pairs that are merged, in order: enough for some words to be whole, some pieces, some bytes.
MERGES = (
    "r e|re d</w>|b l|bl u|blu e</w>|c i|ci r|cir c|circ l|circl e</w>|s q|o n</w>|a n|t h|th e</w>|i n|e r</w>|a t</w>|o f</w>"
)


def vocabulary(folder: Path, pad: str, length: int = 77) -> None:
    """Write a tokenizer in CLIP's files: vocab.json, merges.txt and their configs."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    merges = MERGES.split("|")
    words = [*alphabet, *(f"{sign}</w>" for sign in alphabet), *(merge.replace(" ", "") for merge in merges)]
    vocab = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    config = {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def unet(**changes):
    """Three stages of few channels, alive at the output."""
    from diffusers import UNet2DConditionModel

    config = {
        "block_out_channels": [8, 16, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "sample_size": 16,
    }
    return _alive(UNet2DConditionModel(**config | changes))


def unet_xl(**changes):
    """SDXL's shape: no attention in the outer stage, unequal depths, size embedding."""
    config = {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 1, 2],
        "attention_head_dim": [1, 2, 2],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 24,
        "cross_attention_dim": 16 + 24,
    }
    return unet(**config | changes)


def vae(**changes):
    """KL VAE, four pixels per latent cell."""
    from diffusers import AutoencoderKL

    config = {
        "block_out_channels": [8, 8, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 64,
    }
    return _alive(AutoencoderKL(**config | changes))


def tiny_vae():
    """TAESD's shape, four pixels per latent cell."""
    from diffusers import AutoencoderTiny

    blocks = {"num_encoder_blocks": [1, 1, 1], "num_decoder_blocks": [1, 1, 1]}
    channels = {"encoder_block_out_channels": [8] * 3, "decoder_block_out_channels": [8] * 3}
    return _alive(AutoencoderTiny(**blocks, **channels))


def text(width: int, *, projection: bool = False, vocab: int = 533):
    """CLIP text tower of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=2,
        num_hidden_layers=3,
        projection_dim=width,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    return _alive((CLIPTextModelWithProjection if projection else CLIPTextModel)(config))


def save_sd(folder: Path, *, network=None, decoder=None) -> Path:
    """Write a StableDiffusionPipeline in diffusers format."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    vocabulary(folder / "made", "<|endoftext|>")
    pipeline = StableDiffusionPipeline(
        unet=network or unet(),
        vae=decoder or vae(),
        text_encoder=text(16),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "made"),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_sdxl(folder: Path, *, network=None, decoder=None, force_zeros: bool = True) -> Path:
    """Write a StableDiffusionXLPipeline in diffusers format; tokenizer_2 pads with '!', as SDXL's does."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    vocabulary(folder / "made", "<|endoftext|>")
    vocabulary(folder / "made_2", "!")
    pipeline = StableDiffusionXLPipeline(
        unet=network or unet_xl(),
        vae=decoder or vae(scaling_factor=0.13025, force_upcast=True),
        text_encoder=text(16),
        text_encoder_2=text(24, projection=True),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "made"),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "made_2"),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        force_zeros_for_empty_prompt=force_zeros,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def _alive(module):
    """As `tools.coverage` makes its micro models; imported late, as torch is."""
    from tools.coverage.parts import alive

    return alive(module)


def save_classifier(folder: Path, labels: int = 3, **told: object) -> Path:
    """A classifier of pictures, two stages of ResNet at 16 px, with its preprocessor's config."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic", num_labels=labels)
    torch.manual_seed(0)
    ResNetForImageClassification(config).save_pretrained(folder)
    told = {"size": {"shortest_edge": 16}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.2, 0.1]} | told
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


def save_dual_encoder(folder: Path, seed: int = 0) -> Path:
    """A pair of encoders as CLIP's, at 16 px, with its tokenizer and image processor."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    from exporter.families.unets.tokens import spelling

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    # From random weights of the usual size every picture looks alike.
    text = {
        **small,
        "vocab_size": 600,
        "max_position_embeddings": 24,
        "eos_token_id": 599,
        "bos_token_id": 598,
        "initializer_factor": 20.0,
    }
    vision = {**small, "image_size": 16, "patch_size": 4, "initializer_factor": 20.0}
    torch.manual_seed(seed)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    CLIPProcessor(pictures, spelling({}, 600, 24)).save_pretrained(folder)
    return folder
