"""Weights of words as A1111 and compel write them: a text → pieces of it, each with its weight. By default nothing reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from engines.errors import UnsupportedError

Syntax = Literal["a1111", "compel"]


class Piece(NamedTuple):
    """A piece of a text, and what its tokens count; None ends a chunk of the text encoder."""

    text: str
    weight: float | None = 1.0


#: What A1111 reads of a text, first match first.
_A1111 = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:([+-]?(?:\d+\.?\d*|\.\d+))\)|\)|\]|[^\\()\[\]:]+|:")
#: What closes a bracket, which one, and what its words count then.
_CLOSING = {")": ("(", 1.1), "]": ("[", 1 / 1.1)}
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
#: Of A1111, what changes a prompt while a picture is sampled, or names another network.
_A1111_OTHER = re.compile(r"\bAND\b|\[[^\[\]]*\|[^\[\]]*\]|\[[^\[\]]*:\s*[\d.]+\s*\]|<(?:lora|lyco|hypernet):")
#: Of compel, what mixes several prompts or changes attention.
_COMPEL_OTHER = re.compile(r"[)\"\w]\.(?:swap|blend|and|add)\(|\b(?:useLora|withLora)\(")
#: Groups within groups of one text.
_DEEPEST = 100
#: A word of compel, a weight behind it, and what ends neither.
_WORD = re.compile(r"(?:\\[()\",.+\-=]|[+-](?![\s()\",.+\-=]|$)|[^\s()\",.+\-=])+")
_SIGNS, _NUMBER = re.compile(r"\++|-+"), re.compile(r"\d+\.?\d*|\.\d+")
_ESCAPED = re.compile(r"\\([()\"])")


def read(text: str, syntax: Syntax | None, downweighted: int = 0) -> list[Piece]:
    """Take a text apart; without a syntax it is one piece, literally.

    In compel's at most `downweighted` pieces may count less than 1: for each a text encoder reads the text once more without it.

    Raises:
        UnsupportedError: the syntax has more in it than weights, or more pieces count less than 1.

    """
    if syntax is None:
        return [Piece(text)]
    found = _READERS[syntax](text)
    low = [piece for piece in found if piece.weight is not None and piece.weight < 1]
    if syntax == "compel" and len(low) > downweighted:
        raise UnsupportedError(
            f"{len(low)} groups of words count less than 1 (the first is {low[0].text!r}, {low[0].weight:g}), and this bundle "
            f"reads {downweighted} in one prompt. Leave some out, or build it with prompts: {{downweighted: {len(low)}}}."
        )
    return found


def _a1111(text: str) -> list[Piece]:
    """As `parse_prompt_attention`: (x) times 1.1, [x] by 1.1, (x:1.3) times 1.3; a bracket behind a backslash is literal."""
    if other := _A1111_OTHER.search(text):
        raise UnsupportedError(
            f"{other[0]!r} in a prompt is none of A1111's weights, and is not supported: there are (x), [x], (x:1.3) and BREAK. "
            "Leave it out, or write a backslash before a bracket."
        )
    found: list[Piece] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(start: int, factor: float) -> None:
        found[start:] = [piece if piece.weight is None else Piece(piece.text, piece.weight * factor) for piece in found[start:]]

    for match in _A1111.finditer(text):
        word = match[0]
        opener, factor = ("(", float(match[1])) if match[1] is not None else _CLOSING.get(word, ("", 1.0))
        if word in opened:
            opened[word].append(len(found))
        elif opener and opened[opener]:
            weigh(opened[opener].pop(), factor)
        elif word[0] == "\\":
            found.append(Piece(word[1:]))
        else:
            found += [each for part in _BREAK.split(word) for each in (Piece("", None), Piece(part))][1:]
    for opener, factor in _CLOSING.values():
        for start in opened[opener]:  # what is not closed reaches to the end
            weigh(start, factor)
    return _joined(found, "")


def _compel(text: str) -> list[Piece]:
    """As compel's parser: word+, (some words)++, (some words)1.3, "some words"+; a + is times 1.1, a - times 0.9."""
    if other := _COMPEL_OTHER.search(text):
        raise UnsupportedError(
            f"{other[0]!r} in a prompt is none of compel's weights, and is not supported: there are word+, (some words)++ and "
            "(some words)1.3. Leave it out."
        )
    if text.count("(") > _DEEPEST or text.count('"') > _DEEPEST:
        raise UnsupportedError(f"a prompt has more than {_DEEPEST} brackets or quotes. Write fewer.")
    found, at = list[Piece](), 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif (made := _attended(text, at)) is not None:
            found += made[0]
            at = made[1]
        else:
            end = next((index for index in range(at, len(text)) if text[index].isspace()), len(text))
            found.append(Piece(text[at:end]))
            at = end
    pieces = [Piece(_ESCAPED.sub(r"\1", piece.text), piece.weight) for piece in found]
    return _joined(pieces, " ")


def _attended(text: str, at: int, *, inside: bool = False) -> tuple[list[Piece], int] | None:
    """A word, or a group in brackets or quotes, with the weight behind it, and where it ends; None where there is no such.

    A word without a weight counts only `inside` a group.
    """
    if text[at] in '("':
        group = _group(text, at)
        if group is None:
            return None
        pieces, end = group
        factor, end = _factor(text, end, numbers=True)
        return [Piece(piece.text, (piece.weight or 0.0) * factor) for piece in pieces], end
    match = _WORD.match(text, at)
    if match is None:
        return None
    factor, end = _factor(text, match.end(), numbers=False)
    return ([Piece(match[0], factor)], end) if inside or end > match.end() else None


def _group(text: str, at: int) -> tuple[list[Piece], int] | None:
    """What stands in brackets or quotes, and where they end; None where they do not, or hold what compel does not read."""
    close, found = {"(": ")", '"': '"'}[text[at]], list[Piece]()
    at += 1
    while at < len(text):
        if text[at] == close:
            return found, at + 1
        if text[at].isspace():
            at += 1
        elif text[at] in ",.":
            found.append(Piece(text[at]))
            at += 1
        elif (made := _attended(text, at, inside=True)) is not None:
            found += made[0]
            at = made[1]
        else:
            return None
    return None


def _factor(text: str, at: int, *, numbers: bool) -> tuple[float, int]:
    """The weight that stands at a place, 1 where none does, and where it ends."""
    if match := _SIGNS.match(text, at):
        return (1.1 if match[0][0] == "+" else 0.9) ** len(match[0]), match.end()
    if numbers and (match := _NUMBER.match(text, at)):
        return float(match[0]), match.end()
    return 1.0, at


def _joined(pieces: Sequence[Piece], between: str) -> list[Piece]:
    """Neighbours of one weight as one piece."""
    found: list[Piece] = []
    for piece in pieces:
        if found and piece.weight is not None and found[-1].weight == piece.weight:
            found[-1] = Piece(f"{found[-1].text}{between}{piece.text}", piece.weight)
        else:
            found.append(piece)
    return found or [Piece("")]


_READERS: Mapping[Syntax, Callable[[str], list[Piece]]] = {"a1111": _a1111, "compel": _compel}
