"""How a pipeline reads texts: what its tokenizers are asked for, and what of their answers it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from engines.errors import UnsupportedError
from engines.manifest import OpenLength
from engines.signature import Dim, Range
from exporter.families.tracing.following.dry_run import NEGATIVE, POSITIVE, Encoding, Leaf, TokenCall
from exporter.families.tracing.following.listed_ids import Pieces
from exporter.families.tracing.texts.quoted import Quotes

#: How a tokenizer is asked for texts of a fixed length.
PADDED = "max_length"
#: Its option by which a text is filled up to a multiple of ids, which is masked.
MULTIPLE = "pad_to_multiple_of"
_BRANCHES = ("negative", "prompt")


class TextLengths(Protocol):
    """How many ids the texts of a call may have."""

    def of_ids(self, call: TokenCall, row: int = 0) -> Range:
        """As many as are read of its text of that number, without what pads it."""
        ...

    def pads(self, call: TokenCall) -> int:
        """How many of those that pad a text are kept behind it."""
        ...

    def whole(self, call: TokenCall) -> Range:
        """As many as the call ever gives."""
        ...

    def drives(self, call: TokenCall) -> bool:
        """Whether some conditioning is as long as the call's own texts say."""
        ...


class AskedTokens(dict[str, Tensor]):
    """What a tokenizer gives, with what was looked at noted in `read`."""

    def __init__(self, content: Mapping[str, Tensor], read: set[str]) -> None:
        super().__init__(content)
        self._read = read

    def __getitem__(self, name: str) -> Tensor:
        self._read.add(name)
        return super().__getitem__(name)

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("__") or name not in self.keys():
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        """Its own, so that `**` asks for what it hands on."""
        return super().__iter__()

    def items(self) -> Any:  # noqa: ANN401 - dict's
        """Everything."""
        self._read.update(self)
        return super().items()

    def to(self, *_: object, **__: object) -> AskedTokens:
        """Itself: where it lies does not matter."""
        return self


@dataclass(frozen=True)
class Reading:
    """How a pipeline has a text read by one tokenizer.

    Attributes:
        tokenizer: its name.
        length: ids of a text, where they are all of one length.
        masked: whether the attention mask is looked at.
        before: what the pipeline puts in front of the text; so is `after` behind it.
        lower: whether it makes small letters of it and cuts off blanks.
        special: whether the tokenizer adds its special tokens.
        open: the lengths that texts may have, where they are not all of the same.
        branch: which branch alone is read, where lengths are open; 1 is the prompt's.
        pads: how many of the ids that pad texts the pipeline keeps behind one.
        quotes: how texts are cut into pieces that are read alone; None: they are not.
        pictures: tokens that stand for pictures which are put into every text.
        empty: what is tokenized in the place of an empty text.

    """

    tokenizer: str
    length: int
    masked: bool
    before: str
    after: str
    lower: bool
    special: bool
    open: Range | None = None
    branch: int | None = None
    pads: int = 0
    quotes: Quotes | None = None
    pictures: tuple[str, ...] = ()
    empty: str = ""

    @property
    def most(self) -> int:
        """Ids of a text, or of the longest one."""
        return self.open.max if self.open else self.length

    @property
    def whole(self) -> bool:
        """Whether all ids are fed that a text may have, of one that is cut or filled to as many as another text has."""
        return self.open is not None and self.open.min == self.open.max

    def shape(self, name: str, branches: int) -> tuple[int, Dim]:
        """Of one picture's ids under the bundle's name for it: (branches, length)."""
        return (branches if self.branch is None else 1), (self._dim(name) if self.open else self.length)

    def entry(self, name: str) -> OpenLength | None:
        """What the manifest says of lengths that are open."""
        branch: Any = None if self.branch is None else _BRANCHES[self.branch]
        return OpenLength(dim=self._dim(name), multiple=self.open.multiple, branch=branch) if self.open else None

    def filled(self, ids: np.ndarray, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401 - transformers'
        """The ids (length,) of one text of open length, filled up to a multiple as the bundle's tokenizer does; its mask."""
        missing = -len(ids) % self.open.multiple if self.open else 0
        sides = (missing, 0) if tokenizer.padding_side == "left" else (0, missing)
        return np.pad(ids, sides, constant_values=tokenizer.pad_token_id), np.pad(np.ones_like(ids), sides)

    @staticmethod
    def _dim(name: str) -> str:
        return f"{name}_length"

    def shown(self, text: str) -> str:
        """What the tokenizer is given."""
        if not text and self.empty:
            return self.empty
        return self.before + (text.lower().strip() if self.lower else text) + self.after


def entries(
    where: str,
    encodings: Sequence[Encoding],
    conditioning: Sequence[Sequence[Leaf | Any]],
    branches: int,
    masked: Callable[[str], bool],
    lengths: Callable[[], TextLengths],
    quotes: Callable[[], Quotes | None],
) -> dict[tuple[str, int], tuple[str, Reading]]:
    """The pipeline's tokenizer and the branch → the bundle's tokenizer, of which there are two where branches differ.

    Args:
        where: name of the pipeline.
        encodings: the calls of its encoder of prompts.
        conditioning: per call, what it returns.
        branches: prompts a picture.
        masked: whether the pipeline looks at the mask of what the tokenizer of a name gives.
        lengths: how long texts are, which is looked at where it is open.
        quotes: how they are cut, which is looked at where lists of ids are made.

    Raises:
        UnsupportedError: how it reads cannot be data.

    """
    found: dict[tuple[str, int], tuple[str, Reading]] = {}
    for each, leaves in zip(encodings, conditioning, strict=True):
        varies = any(leaf.open for leaf in leaves if isinstance(leaf, Leaf))
        for call in (call for call in each.tokens if not call.again):
            for row, text in enumerate(call.texts):
                if (branch := branch_of(text)) is None:
                    continue
                padded = call.options.get("padding") == PADDED
                filled = padded and varies and masked(call.tokenizer)
                fixed = padded and not filled
                _refuse_unmasked(where, call, masked=masked(call.tokenizer), fixed=fixed, varies=varies)
                reading = replace(_reading(call, text, branch), quotes=quotes() if isinstance(text, Pieces) else None)
                if fixed:
                    own = replace(reading, masked=masked(call.tokenizer))
                elif filled and not lengths().drives(call):  # it is cut or filled to what another text has: all of it is fed
                    own = replace(reading, masked=True, open=lengths().whole(call), branch=branch)
                else:  # all of a text's ids are its own, and its mask is made in the graph
                    ids, pads = lengths().of_ids(call, row), lengths().pads(call)
                    own = replace(reading, open=ids, branch=branch if branches == 2 else None, pads=pads)
                same = (name for name, known in found.values() if known == own)
                taken = {name for name, _ in found.values()}
                fresh = call.tokenizer if call.tokenizer not in taken else f"negative_{call.tokenizer}"
                entry = next(same, fresh), own
                if found.setdefault((call.tokenizer, branch), entry) != entry:
                    raise UnsupportedError(f"{where} has {call.tokenizer} read one text in two ways.")
    return found


def _refuse_unmasked(where: str, call: TokenCall, *, masked: bool, fixed: bool, varies: bool) -> None:
    """Raise UnsupportedError where what pads texts of no fixed length is seen."""
    if not fixed and len(call.texts) > 1 and not (varies and masked and _behind(call)):
        told = f"pads the prompt and the negative one to the longer of them ({call.tokenizer})"
        raise UnsupportedError(f"{where} {told} and does not mask it behind their ends, which is not built.")
    if MULTIPLE in call.options and not masked:
        raise UnsupportedError(f"{where} fills texts up to a multiple and does not mask it, which is not built.")


def _behind(call: TokenCall) -> bool:
    """Whether what pads the texts of a call stands behind all of them."""
    return bool((call.mask[:, :-1] >= call.mask[:, 1:]).all())


def _reading(call: TokenCall, text: str, branch: int) -> Reading:
    """How a call reads one of its texts."""
    word = POSITIVE if branch else NEGATIVE
    lower = word not in text
    before, _, after = text.partition(word.lower().strip() if lower else word)
    special = call.options.get("add_special_tokens", True)
    return Reading(
        call.tokenizer, int(call.ids.shape[1]), masked=False, before=before, after=after, lower=lower, special=special,
        pictures=call.seen.reserved if call.seen else (),
    )  # fmt: skip


def branch_of(text: str) -> int | None:
    """Which of the survey's texts one is, 1 for the prompt and 0 for the negative one; None for neither."""
    small = text.lower()
    return 1 if POSITIVE.lower().strip() in small else 0 if NEGATIVE.lower().strip() in small else None
