"""How long texts are of a pipeline that pads them to no fixed length: what its own encoder makes of short and of long ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from engines.errors import UnsupportedError
from engines.signature import Range
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.dry_run import NEGATIVE, POSITIVE, Encoding, TokenCall
from exporter.families.tracing.texts.readings import PADDED

#: What texts go on with.
_WORDS = " and further words"
#: More words than any pipeline reads, and twice as many.
_LONG = (_WORDS * 1500, _WORDS * 3000)
_TYPICAL = _WORDS * 10

#: (prompt, negative prompt) → the calls of a pipeline's encoder.
Encode = Callable[[str, str], list[Encoding]]


class OpenLengths:
    """Lengths of ids and of conditioning over the same texts: each branch longer by itself, both short, both typical, both long.

    Args:
        where: name of the pipeline.
        base: the calls of its encoder for the survey's own texts.
        encode: what gives the same calls for others.

    Raises:
        UnsupportedError: there is no longest text.

    """

    def __init__(self, where: str, base: list[Encoding], encode: Encode) -> None:
        self._where, self._base = where, base
        texts = [(POSITIVE + _WORDS[:count], NEGATIVE) for count in (2, 3, 5, 8, len(_WORDS))]
        texts += [(POSITIVE, NEGATIVE + _WORDS)]
        texts += [(POSITIVE + tail, NEGATIVE + tail) for tail in (_TYPICAL, *_LONG)]
        shortest, self._lettered = _shortest(base, encode)
        self._samples = [base, shortest, *(encode(*pair) for pair in texts)]
        if any(len(one.tokens) != len(own.tokens) for each in self._samples for one, own in zip(base, each, strict=True)):
            raise UnsupportedError(f"{where} calls its tokenizers more often for some texts than for others.")
        self._dims: dict[str, tuple[int, ...]] = {}
        self._pads: dict[int, int] = {}  # by the call's id

    def of_ids(self, call: TokenCall, row: int = 0) -> Range:
        """How many ids a text of one of the base's calls may have, without what fills it up to a number that is not its own.

        Of a text whose end is encoded and then cut off the end is not read: a language model's states do not depend on it.
        """
        counts = self._counts(call, row)
        reaches = [_reach(counts, own) for own in self._dims.values()]
        counts = [min([count, *reaches]) for count in counts]
        return _range(counts, max((_multiple(counts, own) for own in self._dims.values()), default=1))

    def of_leaf(self, name: str, place: int, number: int, axis: int) -> str:
        """The dimension that an axis, behind the batch, of one tensor is that a call of the encoder returns under a name."""
        values = [dry_run.leaves(sample[place].found, 1)[0][number] for sample in self._samples]
        shapes = [tuple(each[0].shape) if isinstance(each, list) else tuple(each.shape[1:]) for each in values]
        lengths = self._emptied(self._bounded([int(shape[axis]) for shape in shapes], name))
        self._keep_padding(name, place, lengths)
        known = next((dim for dim, own in self._dims.items() if own == lengths), f"{name}_length")
        self._dims[known] = lengths
        return known

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Dimension of conditioning → the lengths that it may have."""
        counts = [self._counts(call, row) for call, row in self._calls]
        return {dim: _range(own, max(_multiple(each, own) for each in counts)) for dim, own in self._dims.items()}

    def _place(self, call: TokenCall) -> tuple[int, int]:
        """Number of the encoding, and of one of the base's calls in it."""
        places = (
            (place, number) for place, each in enumerate(self._base) for number, own in enumerate(each.tokens) if own is call
        )
        return next(places)

    def _counts(self, call: TokenCall, row: int = 0) -> tuple[int, ...]:
        counts = self._counted(call, row)
        bare = any(own is call and other == row for own, other in self._bare)
        return (counts[0], 0, *counts[2:]) if bare else counts

    def _counted(self, call: TokenCall, row: int) -> tuple[int, ...]:
        place, number = self._place(call)
        masks = [sample[place].tokens[number].mask for sample in self._samples]
        return self._bounded([int(mask[row].sum()) for mask in masks], call.tokenizer)

    def _emptied(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """The lengths of a tensor, of which the second is an empty text's, also where a text of one letter stands for it."""
        counts = (self._counted(call, row) for call, row in self._bare)
        follows = any(lengths[1] - each[1] == lengths[0] - each[0] for each in counts)
        return (lengths[0], lengths[1] - 1, *lengths[2:]) if follows else lengths

    @property
    def _bare(self) -> list[tuple[TokenCall, int]]:
        """Those calls and rows of which an empty text has no ids, since a letter is all of its text's, and for which one stands.

        The pipeline itself has what pads them, so that its networks are never run on nothing.
        """
        padded = (own for own in self._calls if self._lettered and own[0].options.get("padding") == PADDED)
        return [own for own in padded if self._counted(*own)[1] == 1]

    @property
    def _calls(self) -> list[tuple[TokenCall, int]]:
        """Every text that one of the base's calls reads, by the call and its row."""
        calls = (call for each in self._base for call in each.tokens if not call.again)
        return [(call, row) for call in calls for row in range(len(call.texts))]

    def _keep_padding(self, name: str, place: int, lengths: Sequence[int]) -> None:
        """Note where some of what pads a text is kept, as masks that are summed up, and one more, keep one."""
        for call in self._base[place].tokens:
            if call.again or call.options.get("padding") != PADDED:
                continue
            kept = {length - count for length, count in zip(lengths, self._counts(call), strict=True) if length < max(lengths)}
            if len(kept) == 1 and max(kept) > 0 and self._pads.setdefault(id(call), max(kept)) != max(kept):
                raise UnsupportedError(f"{self._where} keeps more of what pads a text in {name} than elsewhere.")

    def pads(self, call: TokenCall) -> int:
        """How many of the ids that pad a text are kept behind its own, of one of the base's calls; of the longest none fit."""
        return self._pads.get(id(call), 0)

    def whole(self, call: TokenCall) -> Range:
        """As many ids as one of the base's calls ever gives, of any text."""
        place, number = self._place(call)
        most = max(int(sample[place].tokens[number].ids.shape[1]) for sample in self._samples)
        return Range(min=most, typical=most, max=most, multiple=most)

    def drives(self, call: TokenCall) -> bool:
        """Whether some length of conditioning is one of the call's own texts, not another's that it is cut or filled to."""
        counts = self._counts(call)
        return any(len(set(own)) > 1 and len({*zip(counts, own, strict=True)}) == len({*counts}) for own in self._dims.values())

    def _bounded(self, lengths: Sequence[int], what: str) -> tuple[int, ...]:
        if lengths[-1] != lengths[-2]:
            raise UnsupportedError(f"{self._where} reads texts of any length ({what}), and a graph's has a largest one.")
        return tuple(lengths)


def _multiple(counts: Sequence[int], lengths: Sequence[int]) -> int:
    """Of how many a length is a multiple, to which it rounds up the number of ids; 1 where it does not."""
    step = math.gcd(*lengths)
    rounds = all(length == -(-count // step) * step for count, length in zip(counts, lengths, strict=True))
    return step if rounds and tuple(counts) != tuple(lengths) else 1


def _reach(counts: Sequence[int], lengths: Sequence[int]) -> int:
    """The most ids of which something is kept, where what is encoded of more of them is cut off."""
    most = max(lengths)
    left = {count - length for count, length in zip(counts, lengths, strict=True) if length < most}
    return min([counts[-1], *(most + each for each in left)]) if len(left) == 1 else counts[-1]


def _range(lengths: Sequence[int], multiple: int) -> Range:
    low, typical, high = (-(-length // multiple) * multiple for length in (min(lengths), lengths[-3], max(lengths)))
    low = low if multiple == 1 else max(low, multiple)
    return Range(min=low, typical=max(typical, multiple), max=high, multiple=multiple)


def _shortest(base: list[Encoding], encode: Encode) -> tuple[list[Encoding], bool]:
    """An empty text; or one of a letter, where something else is encoded than an empty one, or a network's code needs some ids.

    And whether the letter stands for a text without ids.
    """
    try:
        found = encode("", "")
    except UnsupportedError:
        return encode("a", "a"), True
    same = all(len(one.tokens) == len(own.tokens) for one, own in zip(base, found, strict=True))
    return (found if same else encode("a", "a")), False
