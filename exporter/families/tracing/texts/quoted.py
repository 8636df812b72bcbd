"""Texts of which a pipeline has what is quoted tokenized sign by sign, as of models that write it into pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, pre_tokenizers

from engines.errors import UnsupportedError
from exporter.families.tracing.following.dry_run import POSITIVE
from exporter.families.tracing.following.listed_ids import Pieces

#: Signs that begin and end what is quoted, of which a pipeline may know some.
_PAIRS = tuple((each[0], each[1]) for each in ("''", '""', "‘’", "“”", "「」", "『』", "«»", "《》", "``"))  # noqa: RUF001
#: Within words these are none.
_LETTER = "[a-zA-Z]"
#: Texts on which both must agree.
_ODD = (
    "a 'b c' d", "don't say \"don't\" here", "'a' 'b'", "a '' b \"\" c", "a 'b \"c\" d' e", 'say "a\nb" now',
    "\"open, it's closed", "a 'b", "‘a’ “b c” d", "“a ‘b’ c”",  # noqa: RUF001
    "'tis o' clock", "a'b'", "\"Ünï\" 'ﬁ' “漢字”", " 'a' ", "l'été 'é'",
)  # fmt: skip

#: A text → its pieces as a pipeline has them tokenized.
PiecesOf = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Quotes:
    """How a pipeline cuts texts.

    Attributes:
        pairs: signs that begin and end what is read sign by sign, itself too.
        words: whether a sign between two letters is none, as in "don't".

    """

    pairs: tuple[tuple[str, str], ...]
    words: bool

    @property
    def steps(self) -> list[dict[str, Any]]:
        """What `tokenizers` does of a text before all else: cut out what is quoted, and then cut that into signs."""
        whole = "|".join(self._quoted(*pair) for pair in self.pairs)
        signs = rf"(?:\A(?=(?:{whole})\z)|(?!\A)\G)[\s\S]"
        return [{"type": "Split", "pattern": {"Regex": each}, "behavior": "Isolated", "invert": False} for each in (whole, signs)]

    def cut(self, text: str) -> list[str]:
        """The pieces of a text, as `tokenizers` makes them by these steps."""
        patterns = (step["pattern"]["Regex"] for step in self.steps)
        splits: list[Any] = [pre_tokenizers.Split(Regex(each), "isolated") for each in patterns]
        return [piece for piece, _ in pre_tokenizers.Sequence(splits).pre_tokenize_str(text)]

    def _quoted(self, first: str, last: str) -> str:
        begin, end, inner = re.escape(first), re.escape(last), f"[^{re.escape(first + last)}]"
        if first != last or not self.words:
            return f"{begin}{inner}*?{end}"
        within = f"(?<={_LETTER}){begin}(?={_LETTER})"
        alone = f"(?:(?<!{_LETTER}){begin}|{begin}(?!{_LETTER}))"
        return f"{alone}(?:{inner}|{within})*?{alone}"


def known(where: str, pieces: PiecesOf) -> Quotes | None:
    """How a pipeline cuts texts; None where it has them tokenized whole.

    Args:
        where: name of the pipeline.
        pieces: what it has tokenized of a text, piece by piece.

    Raises:
        UnsupportedError: it cuts them in another way.

    """
    text = "a" + "".join(f" {first}bc{last} d" for first, last in _PAIRS)
    single = set(pieces(text))
    found = Quotes(tuple(pair for pair in _PAIRS if single >= {"b", "c", *pair} and not _kept(pair, pieces)), words=False)
    if len(pieces("a don't b don't c")) == 1 and ("'", "'") in found.pairs:
        found = Quotes(found.pairs, words=True)
    probes = (text, *_ODD)
    if not found.pairs and all(len(pieces(each)) == 1 for each in probes):
        return None
    if any(found.cut(each) != list(pieces(each)) for each in probes):
        told = "cuts texts into pieces that it has tokenized alone, in a way that is not known"
        raise UnsupportedError(f"{where} {told}.\n  What is quoted, sign by sign, is built.")
    return found


def pieces(base: Sequence[Any], encode: Callable[[str], Sequence[Any]], text: str) -> Sequence[str]:
    """What is tokenized alone of a prompt by who `encode`s it; `base` are the same calls for the survey's own."""
    calls = [pair for own, made in zip(base, encode(text), strict=True) for pair in zip(own.tokens, made.tokens, strict=False)]
    texts = [made.texts[0] for known, made in calls if POSITIVE in known.texts[0]]
    return next(own.pieces for own in texts if isinstance(own, Pieces))


def _kept(pair: tuple[str, str], pieces: PiecesOf) -> bool:
    """Whether a text is whole that these are around."""
    return len(pieces(f"a {pair[0]}bc{pair[1]} d")) == 1
