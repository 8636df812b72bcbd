"""Text → ids from a `tokenizers` JSON file, which holds all that is particular to a model: merges, special tokens, padding."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from engines.bundle import Bundle
from engines.errors import BundleError, UnsupportedError


class TextTokenizer:
    """One tokenizer, set to return `length` ids.

    A word of several vectors (textual inversion) stands in the file as added tokens `<cat>`, `<cat>_1`, `<cat>_2` …, and is
    written out as all of them before the text is tokenized, as diffusers' `maybe_convert_prompt` does.

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
        self._words = _of_several_vectors({token.content for token in self._tokenizer.get_added_tokens_decoder().values()})

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Tokenize.

        Returns:
            Ids, int64 (texts, length); attention mask, of the same shape, 1 for a token and 0 for padding; and per text what did
            not fit and was not read, empty where all of it was. A cut text keeps its end token, and is logged as a warning.

        """
        texts = [self._written_out(text) for text in texts]
        encodings = [self._tokenizer.encode(text) for text in texts]
        cuts = tuple(_cut(text, encoding) for text, encoding in zip(texts, encodings, strict=True))
        for cut in filter(None, cuts):
            logging.getLogger(__name__).warning("the prompt is too long; the model does not read its end: %r", cut)
        ids, mask = ([getattr(encoding, name) for encoding in encodings] for name in ("ids", "attention_mask"))
        return np.array(ids, np.int64), np.array(mask, np.int64), cuts

    def _written_out(self, text: str) -> str:
        if not self._words:
            return text
        whole = self._tokenizer.encode(text)
        tokens = {token for piece in (whole, *whole.overflowing) for token in piece.tokens}
        for word in sorted(tokens & self._words.keys()):
            text = text.replace(word, self._words[word])
        return text


class Tokenizers:
    """Every tokenizer of a bundle.

    One whose name ends in `_2` reads `prompt_2` and `negative_prompt_2`, where they are given.

    Raises:
        BundleError: as of one tokenizer.

    """

    def __init__(self, bundle: Bundle) -> None:
        self._guidance = bundle.manifest.guidance
        self._all = [
            (TextTokenizer(bundle.path(entry.file), entry.length), entry, name.endswith("_2"))
            for name, entry in sorted(bundle.manifest.tokenizers.items())
        ]

    def encode(
        self,
        prompts: Sequence[str],
        negatives: str | Sequence[str],
        prompt_2: Sequence[str] = (),
        negative_prompt_2: Sequence[str] = (),
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Ids and attention masks by the input they feed, int64 (prompts, branches, length), and what of each was not read.

        `negatives` is one text for all or one a prompt, and the first branch where there are two. The second tokenizer reads
        `prompt_2` and `negative_prompt_2`, one a prompt, and where one of these is empty what the first reads.

        Raises:
            UnsupportedError: nothing reads a text that is not empty.

        """
        branches = self._guidance.branches
        negatives = [negatives] * len(prompts) if isinstance(negatives, str) else negatives
        others = [list(texts or [""] * len(prompts)) for texts in (prompt_2, negative_prompt_2)]
        if (any(negatives) or any(others[1])) and branches == 1:
            raise UnsupportedError(f"guidance is {self._guidance.mode!r}, so a negative prompt has no effect. Leave it out.")
        if any(prompts) and not self._all:
            raise UnsupportedError("this bundle reads no text, so a prompt has no effect. Leave it out.")
        if any(map(any, others)) and not any(second for *_, second in self._all):
            raise UnsupportedError("this bundle has one text encoder, so a second prompt has no effect. Leave it out.")
        if any(other and not negative for negative, other in zip(negatives, others[1], strict=True)):
            # diffusers leaves a second negative prompt out without a first, where an empty one is zeros.
            raise UnsupportedError("a second negative prompt has no effect without a first. Give negative_prompt too.")
        pairs = list(zip(negatives, prompts, strict=True))
        pairs_2 = [(no_2 or no, yes_2 or yes) for (no, yes), yes_2, no_2 in zip(pairs, *others, strict=True)]
        tokens, unread = dict[str, np.ndarray](), [""] * len(prompts)
        for tokenizer, entry, second in self._all:
            texts = [text for pair in (pairs_2 if second else pairs) for text in pair[-branches:]]
            ids, mask, cuts = tokenizer.encode(texts)
            tokens[entry.feeds] = ids.reshape(len(prompts), branches, -1)
            if entry.mask:
                tokens[entry.mask] = mask.reshape(len(prompts), branches, -1)
            unread = [max(before, cut, key=len) for before, cut in zip(unread, cuts[branches - 1 :: branches], strict=True)]
        return tokens, unread


def _of_several_vectors(added: AbstractSet[str]) -> dict[str, str]:
    """Word → all of its tokens, in order; of words with one vector nothing."""
    found = dict[str, str]()
    for word in added:
        count = next(number for number in itertools.count(1) if f"{word}_{number}" not in added)
        if count > 1:
            found[word] = " ".join([word, *(f"{word}_{number}" for number in range(1, count))])
    return found


def _cut(text: str, encoding: tokenizers.Encoding) -> str:
    starts = [
        start
        for piece in encoding.overflowing
        for (start, _), special in zip(piece.offsets, piece.special_tokens_mask, strict=True)
        if not special
    ]
    return text[min(starts) :] if starts else ""
