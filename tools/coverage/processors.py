"""Micro models whose texts a processor reads, which has the template of a chat beside its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import diffusers as library
import transformers
from diffusers import DiffusionPipeline

from exporter.families.tracing.texts import text_processors
from exporter.families.tracing.texts.text_processors import TextProcessor
from tools.coverage import readers
from tools.coverage.parts import CHAT, VOCABULARY, alive, flow, qwen_vl, spelling_tokenizer

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
#: A chat's template over messages that are lists of contents, as Mistral's and Qwen's processors have it.
_MISTRAL = (
    "<bos>{% for message in messages %}{% if message['role'] == 'system' %}[SYSTEM]{{ message['content'][0]['text'] }}[/SYSTEM]"
    "{% else %}[INST]{{ message['content'][0]['text'] }}[/INST]{% endif %}{% endfor %}"
)
#: What stands around a picture in a text of Qwen's, and for it.
PLACES = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
QWEN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{{ message['content'][0]['text'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def processor(kind: str, template: str, chat: str | None = None, special: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - transformers'
    """A processor's side of texts, named as transformers' class, which needs torchvision for its side of pictures."""
    own = type(kind, (TextProcessor,), {"__module__": transformers.__name__})
    return own(spelling_tokenizer("Qwen2Tokenizer", chat, special), template)


def mistral(width: int = 32) -> Any:  # noqa: ANN401 - a network of either library
    """Mistral 3 of 30 layers, of which FLUX.2 takes the 10th, 20th and 30th; over `spelling_tokenizer`."""
    text: dict[str, Any] = {
        "model_type": "mistral", "vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": 48, "num_hidden_layers": 30,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024,
    }  # fmt: skip
    pictures: dict[str, Any] = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "head_dim": 8,
    }  # fmt: skip
    config = transformers.Mistral3Config(text_config=text, vision_config=pictures)
    return alive(transformers.Mistral3ForConditionalGeneration(config))


def flux2() -> DiffusionPipeline:
    """Three layers of Mistral 3 under a long system prompt, and a network that is handed the guidance scale."""
    made = readers.flux2_klein()
    network = diffusers.Flux2Transformer2DModel(**{**made.transformer.config, "guidance_embeds": True})
    return diffusers.Flux2Pipeline(made.scheduler, made.vae, mistral(), processor("PixtralProcessor", _MISTRAL), alive(network))


def nucleus_moe() -> DiffusionPipeline:
    """Qwen 3 VL, whose texts are filled up to multiples of 8 ids, and experts that choose their cells."""
    network = diffusers.NucleusMoEImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2, num_key_value_heads=1,
        joint_attention_dim=32, axes_dims_rope=(8, 4, 4), dense_moe_strategy="leave_first_block_dense", num_experts=4,
        moe_intermediate_dim=16, capacity_factors=2.0, mlp_ratio=8.0,
    )  # fmt: skip
    made = readers.qwen_image()
    reader = qwen_vl("Qwen3VL", num_hidden_layers=8)  # of which the pipeline takes the eighth from the end
    return diffusers.NucleusMoEImagePipeline(
        alive(network), made.scheduler, made.vae, reader, processor("Qwen3VLProcessor", QWEN)
    )


def picture_processor(tokenizer: Any) -> Any:  # noqa: ANN401 - transformers'
    """Qwen 2's processor of texts and pictures, of which it makes few patches."""
    sizes = {"shortest_edge": 4 * 28**2, "longest_edge": 30 * 28**2}
    return text_processors.pictured("Qwen2VLProcessor", transformers.Qwen2VLImageProcessorPil(size=sizes), tokenizer, QWEN)


def qwen_image_edit(kind: str = "QwenImageEditPipeline") -> DiffusionPipeline:
    """Qwen-Image's networks under a pipeline whose text encoder sees the picture too, of which it makes 10 by 10 patches.

    The picture has a million pixels, whatever is drawn, and 16 of them to a cell's side.
    """
    made = readers.qwen_image(downsampled=4).components
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", CHAT, PLACES)
    reader = qwen_vl("Qwen2_5_VL", image_token=tokenizer.convert_tokens_to_ids(PLACES[1]))
    return getattr(diffusers, kind)(
        **{**made, "text_encoder": reader, "tokenizer": tokenizer}, processor=picture_processor(tokenizer)
    )


def qwen_image_21() -> DiffusionPipeline:
    """Qwen 3 VL, and a network that reads text and cells as one sequence."""
    network = diffusers.QwenImage21Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2, context_in_dim=32,
        axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderKLQwenImage21(
        base_dim=8, decoder_base_dim=8, z_dim=4, dim_mult=[1] * 5, num_res_blocks=1, latents_mean=[0.1] * 4,
        latents_std=[1.1, 0.9, 1.2, 1.0],
    )  # fmt: skip
    reader = processor("Qwen3VLProcessor", QWEN, CHAT, PLACES)
    return diffusers.QwenImage21Pipeline(
        flow(use_dynamic_shifting=True), alive(autoencoder), qwen_vl("Qwen3VL"), reader, alive(network)
    )


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "flux2": flux2,
    "flux2-pictured": flux2,
    "nucleusmoe-image": nucleus_moe,
    "qwenimage21": qwen_image_21,
    "qwenimage-edit-pictured": qwen_image_edit,
    "qwenimage-edit-plus-pictured": partial(qwen_image_edit, "QwenImageEditPlusPipeline"),
    "qwenimage-edit-plus-two": partial(qwen_image_edit, "QwenImageEditPlusPipeline"),
    "qwenimage-layered-pictured": partial(qwen_image_edit, "QwenImageLayeredPipeline"),
    "qwenimage-edit-inpaint": partial(qwen_image_edit, "QwenImageEditInpaintPipeline"),
}
