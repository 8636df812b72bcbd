"""Tokenizers of CLIP as transformers has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from diffusers.loaders import TextualInversionLoaderMixin
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from engines.chunks import Frame, Token, chunked
from engines.errors import RecipeError, UnsupportedError
from engines.weighted_text import read as read_weights
from exporter.families import Family
from exporter.recipe.prompts import Prompts

#: The special tokens of every CLIP vocabulary, in the order of their ids, which are the last two.
_START, _END = "<|startoftext|>", "<|endoftext|>"


class ClipFamily(Family, Protocol):
    """A family whose text encoders are CLIP's.

    Attributes:
        penultimate: whether it takes the states before the encoders' last layer.

    """

    penultimate: bool

    def chunk(self, tower: str) -> int:
        """Token ids that one text encoder encodes at once."""
        ...

    def empty(self, tower: str) -> list[int]:
        """Ids of the empty prompt."""
        ...


def read(folder: Path, name: str, tower: str, size: int) -> CLIPTokenizer:
    """Read a tokenizer from its folder, for a text tower of `size` embeddings.

    Raises:
        UnsupportedError: the folder is incomplete, or the vocabulary is larger than that.

    """
    if not any((folder / file).is_file() for file in ("vocab.json", "tokenizer.json")):
        raise UnsupportedError(f"{folder} has neither vocab.json nor tokenizer.json.\n  Copy the model's {name} folder whole.")
    found = CLIPTokenizer.from_pretrained(folder)
    if len(found) > size:
        raise UnsupportedError(
            f"{folder} has {len(found)} tokens, {tower} has room for {size}.\n  Take the tokenizer saved with these weights."
        )
    return found


def with_words(tokenizer: CLIPTokenizer, words: Sequence[str]) -> CLIPTokenizer:
    """Add tokens as diffusers adds those of textual inversions.

    Raises:
        RecipeError: the tokenizer has such a token.

    """
    known = tokenizer.get_vocab()
    if clashes := [
        f"model.embeddings: {word!r} is a token already; give it another with token: <{word}>" for word in words if word in known
    ]:
        raise RecipeError(clashes)
    for word in words:  # one by one, so that their ids count up
        tokenizer.add_tokens(word)
    return tokenizer


def rows(tokenizer: CLIPTokenizer, texts: Sequence[str], length: int, prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
    """Ids, int64, and weights, float32, each (texts, length in all chunks), as diffusers tokenizes: words are written out first.

    `length` is that of a chunk. diffusers knows neither chunks nor weights: those are read as at run time, and tokenized here.
    """
    convert: Any = TextualInversionLoaderMixin().maybe_convert_prompt  # typed for slow tokenizers alone
    if prompts.chunks == 1 and prompts.weights is None:
        ids = tokenizer(convert(list(texts), tokenizer), padding="max_length", max_length=length, truncation=True)["input_ids"]
        return np.array(ids, np.int64), np.ones(np.shape(ids), np.float32)
    comma = tokenizer.get_vocab().get(",</w>")
    special: Any = tokenizer  # whose ids are typed as whatever a config may hold
    frame = Frame(length, (special.bos_token_id,), (special.eos_token_id,), special.pad_token_id, comma)
    found = []
    for text in texts:
        tokens: list[Token | None] = []
        for piece, weight in read_weights(text, prompts.weights, prompts.downweighted):
            ids = tokenizer(convert(piece, tokenizer), add_special_tokens=False)["input_ids"]
            tokens += [None] if weight is None else [Token(number, weight) for number in ids]
        found.append(chunked(tokens, frame, prompts.chunks, prompts.weights))
    return np.array([row.ids for row in found], np.int64), np.array([row.weights for row in found], np.float32)


def spelling(config: Mapping[str, Any], size: int, length: int) -> CLIPTokenizer:
    """Make a tokenizer without merges, for a model that has no vocabulary: each byte is a token."""
    special = {key: str(config.get(key, _END)) for key in ("pad_token", "unk_token")}
    return CLIPTokenizer(_bytes(size), [], bos_token=_START, eos_token=_END, model_max_length=length, **special)


def _bytes(size: int) -> dict[str, int]:
    """Vocabulary in CLIP's layout without merges: each byte, each byte at a word's end, and the two special tokens last."""
    # CLIP numbers the printable bytes first; '!' is 0, the id with which SD 2 and SDXL's second tokenizer pad.
    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(f"{sign}</w>" for sign in alphabet)]
    return {**{word: number for number, word in enumerate(words[: size - 2])}, _START: size - 2, _END: size - 1}
