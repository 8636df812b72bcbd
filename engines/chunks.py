"""Texts longer than a text encoder reads at once: tokens → chunks, each with its own special tokens and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engines.weighted_text import Syntax

#: How far A1111 goes back to a comma, lest a chunk end within a phrase (comma_padding_backtrack).
_BACK = 20


class Token(NamedTuple):
    """One token, how much it counts, and the text from it to the next one."""

    id: int
    weight: float = 1.0
    text: str = ""


class Frame(NamedTuple):
    """What a chunk is made of: its length in ids, those before and behind the text's, what pads, and the comma's id, if any."""

    size: int
    before: tuple[int, ...]
    behind: tuple[int, ...]
    pad: int
    comma: int | None


class Chunked(NamedTuple):
    """A text's ids, mask (1 of a token, 0 of padding) and weights, and what of it did not fit."""

    ids: list[int]
    mask: list[int]
    weights: list[float]
    unread: str


def chunked(tokens: Sequence[Token | None], frame: Frame, chunks: int, syntax: Syntax | None = None) -> Chunked:
    """Divide tokens into so many chunks, the last ones empty where the text is short; None ends a chunk (A1111's BREAK)."""
    room = frame.size - len(frame.before) - len(frame.behind)
    parts = _divided(tokens, room, chunks, frame.comma if syntax == "a1111" else None)
    ids, mask, weights = list[int](), list[int](), list[float]()
    for number in range(chunks):
        part = parts[number] if number < len(parts) else []
        own = [*frame.before, *(token.id for token in part), *frame.behind]
        padding = frame.size - len(own)
        ids += [*own, *[frame.pad] * padding]
        mask += [1] * len(own) + [0] * padding
        weights += [1.0] * len(frame.before) + [token.weight for token in part] + [1.0] * (padding + len(frame.behind))
    return Chunked(ids, mask, weights, "".join(token.text for part in parts[chunks:] for token in part))


def _divided(tokens: Sequence[Token | None], room: int, chunks: int, comma: int | None) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token is None:
            parts.append([])
            continue
        if len(parts[-1]) == room:
            moved = 0
            # Of the last chunk nothing moves: it would not be read.
            if comma is not None and token.id != comma and len(parts) < chunks:
                moved = next((back for back in range(min(_BACK, room)) if parts[-1][-1 - back].id == comma), 0)
            parts.append(parts[-1][room - moved :])
            del parts[-2][room - moved :]
        parts[-1].append(token)
    return parts
