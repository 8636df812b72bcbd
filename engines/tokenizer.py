"""Text → ids from a `tokenizers` JSON file, which holds all that is particular to a model: merges, special tokens, padding."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import tokenizers

from engines.bundle import Bundle
from engines.chunks import Frame, Token, chunked
from engines.errors import BundleError, UnsupportedError
from engines.manifest import PROMPT, Tokenizer
from engines.weighted_text import Syntax, read


class Tokens(NamedTuple):
    """What a tokenizer makes of texts.

    Attributes:
        ids: int64 (texts, length).
        mask: int64 of the same shape, 1 for a token and 0 for padding.
        unread: per text what did not fit and was not read, empty where all of it was.
        weights: float32 of the ids' shape, how much each token counts; 1 where nothing says otherwise.
        lengths: int64 (texts,), how many of the ids are a text's own; of an open length the rest is there for the others'.

    """

    ids: np.ndarray
    mask: np.ndarray
    unread: tuple[str, ...]
    weights: np.ndarray
    lengths: np.ndarray


class TextTokenizer:
    """One tokenizer, set to return `length` ids: one chunk, or several of the same length, each with its own special tokens.

    Of an open length it returns as many as a text needs, up to `length`, in multiples of `multiple`.

    A word of several vectors (textual inversion) stands in the file as added tokens `<cat>`, `<cat>_1`, `<cat>_2` …, and is
    written out as all of them before the text is tokenized, as diffusers' `maybe_convert_prompt` does.

    Args:
        file: of the library `tokenizers`.
        length: ids of a text.
        chunks: pieces that they are in.
        syntax: in which texts say what their words count; by default they are taken literally.
        multiple: of an open length; 0 of a fixed one.
        downweighted: groups of words that may count less than 1, in compel's syntax.

    Raises:
        BundleError: the file is no tokenizer, or does not say how it pads.

    """

    def __init__(
        self, file: Path, length: int, chunks: int = 1, syntax: Syntax | None = None, multiple: int = 0, downweighted: int = 0
    ) -> None:
        self._chunks, self._downweighted, size = chunks, downweighted, length // chunks
        self._shown: Callable[[str], str] = str
        self._pictures: tuple[str, ...] = ()
        self._syntax: Syntax | None = syntax
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(file))
            padding: dict[str, Any] = self._tokenizer.padding or {}
            self._tokenizer.enable_truncation(size)  # counts the special tokens, so the end token stays
            own = {"length": None, "pad_to_multiple_of": multiple} if multiple else {"length": size, "pad_to_multiple_of": None}
            self._tokenizer.enable_padding(**{**padding, **own})
        except Exception as error:  # the library raises nothing narrower
            raise BundleError(f"{file} is not a tokenizer for {length} ids: {error}. Build the bundle again.") from error
        if not padding or self._tokenizer.num_special_tokens_to_add(False) > size:  # noqa: FBT003 - the library's signature
            raise BundleError(f"{file} does not say which id pads, or adds more than {size} ids. Build the bundle again.")
        self._words = _of_several_vectors({token.content for token in self._tokenizer.get_added_tokens_decoder().values()})
        self._plain = chunks == 1 and syntax is None
        if self._plain:
            return
        empty = self._tokenizer.encode("")
        special = tuple(number for number, real in zip(empty.ids, empty.attention_mask, strict=True) if real)
        comma = self._tokenizer.token_to_id(",</w>")
        self._frame = Frame(size, special[:-1], special[-1:], int(padding["pad_id"]), comma)
        self._pieces: Any = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        self._pieces.no_truncation()
        self._pieces.no_padding()

    @classmethod
    def of(cls, file: Path, entry: Tokenizer) -> Self:
        """One tokenizer of a bundle, as its manifest has it."""
        multiple = entry.open.multiple if entry.open else 0
        found = cls(file, entry.length, entry.chunks, entry.syntax, multiple, entry.downweighted)
        found._shown, found._pictures = entry.shown, entry.pictures
        return found

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Tokenize; a cut text keeps its end token, and what of it is not read is logged as a warning.

        Raises:
            UnsupportedError: a text has a token that stands for a picture.

        """
        texts = [self._shown(text) for text in texts]
        for token in self._pictures:
            own = self._shown("").count(token)  # of the pictures that the bundle is fed
            if any(text.count(token) != own for text in texts):
                raise UnsupportedError(
                    f"{token} in a prompt stands for a picture to this model, and pictures are given as inputs. Leave it out."
                )
        found = self._whole(texts) if self._plain else self._chunked(texts)
        for cut in filter(None, found.unread):
            logging.getLogger(__name__).warning("the prompt is too long; the model does not read its end: %r", cut)
        return found

    def _whole(self, texts: Sequence[str]) -> Tokens:
        texts = [self._written_out(text) for text in texts]
        encodings = [self._tokenizer.encode(text) for text in texts]
        cuts = tuple(_cut(text, encoding) for text, encoding in zip(texts, encodings, strict=True))
        lengths = np.array([len(encoding.ids) for encoding in encodings], np.int64)
        ids, mask = (
            np.array([row + [0] * (int(lengths.max()) - len(row)) for row in rows], np.int64)
            for rows in ([getattr(encoding, name) for encoding in encodings] for name in ("ids", "attention_mask"))
        )
        return Tokens(ids, mask, cuts, np.ones(ids.shape, np.float32), lengths)

    def _chunked(self, texts: Sequence[str]) -> Tokens:
        rows = [chunked(self._pieced(text), self._frame, self._chunks, self._syntax) for text in texts]
        ids, mask, weights = (np.array([getattr(row, name) for row in rows]) for name in ("ids", "mask", "weights"))
        lengths = np.full(len(rows), ids.shape[1], np.int64)
        return Tokens(
            ids.astype(np.int64), mask.astype(np.int64), tuple(row.unread for row in rows), weights.astype(np.float32), lengths
        )

    def _pieced(self, text: str) -> list[Token | None]:
        """Tokens of a text with what they count, and None where a chunk ends."""
        found = list[Token | None]()
        for piece, weight in read(text, self._syntax, self._downweighted):
            if weight is None:
                found.append(None)
                continue
            written = self._written_out(piece)
            encoding = self._pieces.encode(written, add_special_tokens=False)
            starts = [start for start, _ in encoding.offsets]
            ends = [*starts, len(written)][1:]
            found += (
                [Token(number, weight, written[start:end]) for number, start, end in zip(encoding.ids, starts, ends, strict=True)]
                if starts
                else []
            )
        return found

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
            (TextTokenizer.of(bundle.path(entry.file), entry), entry, name.endswith("_2"))
            for name, entry in sorted(bundle.manifest.tokenizers.items())
        ]

    def encode(
        self,
        prompts: Sequence[str],
        negatives: str | Sequence[str],
        prompt_2: Sequence[str] = (),
        negative_prompt_2: Sequence[str] = (),
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Ids, masks and weights by the input they feed, (prompts, branches, length), and what of each was not read.

        Of an open length they are padded to the longest of these prompts, and the dimension's own name has how long each is.
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
            own = entry.rows(branches)
            found = tokenizer.encode([pair[branch] for pair in (pairs_2 if second else pairs) for branch in own])
            for name, array in ((entry.feeds, found.ids), (entry.mask, found.mask), (entry.weights, found.weights)):
                tokens |= {name: array.reshape(len(prompts), len(own), -1)} if name else {}
            tokens |= {entry.open.dim: found.lengths.reshape(len(prompts), -1).max(axis=1)} if entry.open else {}
            if own[-1] == PROMPT:
                cuts = found.unread[len(own) - 1 :: len(own)]
                unread = [max(before, cut, key=len) for before, cut in zip(unread, cuts, strict=True)]
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
