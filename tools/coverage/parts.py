"""Networks and tokenizers of which micro models are made: real classes of diffusers and transformers, few weights."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from tokenizers.pre_tokenizers import ByteLevel

#: Ids of every micro vocabulary but CLIP's: special tokens, then single characters.
VOCABULARY = 300
#: A chat's template, as Qwen's tokenizers have it.
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def alive(network: Any) -> Any:  # noqa: ANN401 - a network of either library
    """Give every weight a value of the size that keeps activations alive; the same ones for the same class."""
    generator = torch.Generator().manual_seed(sum(map(ord, type(network).__name__)))
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim > 1:
                value.normal_(0, value[0].numel() ** -0.5, generator=generator)
            elif name.endswith("bias"):
                value.normal_(0, 0.1, generator=generator)
            else:
                value.normal_(1, 0.1, generator=generator)
    return network.eval()


def clip_tokenizer(pad: str = "<|endoftext|>") -> Any:  # noqa: ANN401 - transformers'
    """CLIP's tokenizer without merges: each byte is a token."""
    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(f"{sign}</w>" for sign in alphabet), "<|startoftext|>", "<|endoftext|>"]
    special = {"bos_token": words[-2], "eos_token": words[-1], "unk_token": words[-1], "pad_token": pad}
    vocab = {word: number for number, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77, **special)


def clip(width: int = 32, *, projection: bool = False) -> Any:  # noqa: ANN401 - a network of either library
    """CLIP's text encoder of two layers, over `clip_tokenizer`."""
    config = transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=width, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2,
        projection_dim=width, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return alive((transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config))


def t5_tokenizer() -> Any:  # noqa: ANN401 - transformers'
    """T5's tokenizer over single characters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(sign, -3.0) for sign in string.ascii_letters + string.digits + string.punctuation]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0)


def sentence_tokenizer(kind: str) -> Any:  # noqa: ANN401 - transformers'
    """A tokenizer of XLM-RoBERTa's class over single characters, between a sign of the beginning and one of the end."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(sign, -3.0) for sign in string.ascii_letters + string.digits + string.punctuation]
    return getattr(transformers, kind)(vocab=pieces)


def t5(width: int = 32, kind: str = "T5") -> Any:  # noqa: ANN401 - a network of either library
    """T5's encoder of two layers, or UMT5's, over `t5_tokenizer`."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY, d_model=width, d_ff=37, d_kv=8, num_heads=4, num_layers=2, feed_forward_proj="gated-gelu"
    )
    return alive(getattr(transformers, f"{kind}EncoderModel")(config))


def vae(stages: int = 2, **changes: Any) -> Any:  # noqa: ANN401 - a network of either library
    """A VAE; each stage but the last doubles the pixels per cell of the latent."""
    config = {
        "block_out_channels": [8] * stages,
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "up_block_types": ["UpDecoderBlock2D"] * stages,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 32,
    }
    return alive(AutoencoderKL(**config | changes))


def flow(**changes: Any) -> FlowMatchEulerDiscreteScheduler:  # noqa: ANN401 - of its config
    """Flow matching."""
    return FlowMatchEulerDiscreteScheduler(**changes)


def spelling_tokenizer(
    kind: str,
    template: str | None = None,
    more: Sequence[str] = (),
    merges: Sequence[tuple[str, str]] = (),
    at: Mapping[str, int] | None = None,
) -> Any:  # noqa: ANN401 - transformers'
    """A tokenizer of Gemma's or Qwen's class over single characters, with the template of a chat where there is one.

    `more` are special tokens behind all others, `merges` characters that are one token beside each other, and `at` special tokens
    that have ids of their own.
    """
    signs = [*sorted(ByteLevel.alphabet()), "▁"]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*special, *signs, *map("".join, merges)]
    vocab = {word: number for number, word in enumerate(words)} | dict(at or {})
    made = getattr(transformers, kind)(vocab=vocab, merges=list(merges))
    made.chat_template = template
    if own := [*more, *(at or {})]:
        made.add_special_tokens({"extra_special_tokens": own})
    return made


def language_model(kind: str, width: int = 32, head: str = "Model", **changes: Any) -> Any:  # noqa: ANN401 - a network of either library
    """A language model of two layers, of which pipelines take hidden states: Gemma2, Qwen3 …; over `spelling_tokenizer`.

    `head` is how its class goes on behind its kind.
    """
    fields = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "attn_implementation": "eager",
        "pad_token_id": 0,
    }
    return alive(getattr(transformers, f"{kind}{head}")(getattr(transformers, f"{kind}Config")(**fields | changes)))


def bert() -> tuple[Any, Any]:
    """BERT of two layers, and its tokenizer over single characters."""
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37
    )
    signs = string.ascii_lowercase + string.digits
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs)]
    tokenizer = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    return alive(transformers.BertModel(config)), tokenizer


def t5gemma(width: int = 32) -> Any:  # noqa: ANN401 - a network of either library
    """T5Gemma's encoder of two layers, over `spelling_tokenizer`."""
    fields: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 512,
    }  # fmt: skip
    inner = transformers.T5GemmaModuleConfig(**fields)
    config = transformers.T5GemmaConfig(encoder=inner, decoder=inner, is_encoder_decoder=False, vocab_size=VOCABULARY)
    return alive(transformers.T5GemmaEncoderModel(config).encoder)


def qwen_vl(kind: str, width: int = 32, image_token: int | None = None, **changes: Any) -> Any:  # noqa: ANN401 - of the language model's config, and a network
    """A language model of two layers that could read pictures too: Qwen2_5_VL or Qwen3VL; over `spelling_tokenizer`.

    One that does has an id that stands for them, and a layer for them that looks within windows.
    """
    text: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}, **changes,
    }  # fmt: skip
    pictures: dict[str, Any] = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": width,
        "deepstack_visual_indexes": [0], "fullatt_block_indexes": [0],
    }  # fmt: skip
    own: dict[str, Any] = {}
    if image_token is not None:
        pictures |= {"depth": 2, "fullatt_block_indexes": [1]}
        own = {"image_token_id": image_token}
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=pictures, **own)
    return alive(getattr(transformers, f"{kind}ForConditionalGeneration")(config))
