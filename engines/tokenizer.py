"""Text → ids from a `tokenizers` JSON file, which holds all that is particular to a model: merges, special tokens, padding."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from engines.errors import BundleError


class TextTokenizer:
    """One tokenizer, set to return `length` ids.

    Raises:
        BundleError: the file is no tokenizer, or does not say how it pads.

    """

    def __init__(self, file: Path, length: int) -> None:
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(file))
            padding: dict[str, Any] = self._tokenizer.padding or {}
            self._tokenizer.enable_truncation(length)  # counts the special tokens, so the end token stays
            self._tokenizer.enable_padding(**{**padding, "length": length, "pad_to_multiple_of": None})
        except Exception as error:  # the library raises nothing narrower
            raise BundleError(f"{file} is not a tokenizer for {length} ids: {error}. Build the bundle again.") from error
        if not padding or self._tokenizer.num_special_tokens_to_add(False) > length:  # noqa: FBT003 - the library's signature
            raise BundleError(f"{file} does not say which id pads, or adds more than {length} ids. Build the bundle again.")

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Tokenize.

        Returns:
            Ids, int64 (texts, length); and per text what did not fit and was not read, empty where all of it was.
            A cut text keeps its end token, and is logged as a warning.

        """
        encodings = [self._tokenizer.encode(text) for text in texts]
        cuts = tuple(_cut(text, encoding) for text, encoding in zip(texts, encodings, strict=True))
        for cut in filter(None, cuts):
            logging.getLogger(__name__).warning("the prompt is too long; the model does not read its end: %r", cut)
        return np.array([encoding.ids for encoding in encodings], np.int64), cuts


def _cut(text: str, encoding: tokenizers.Encoding) -> str:
    starts = [
        start
        for piece in encoding.overflowing
        for (start, _), special in zip(piece.offsets, piece.special_tokens_mask, strict=True)
        if not special
    ]
    return text[min(starts) :] if starts else ""
