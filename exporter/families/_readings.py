"""How a pipeline reads texts: what its tokenizers are asked for, and what of their answers it looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


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
        length: ids of a text.
        masked: whether the attention mask is looked at.
        before: what the pipeline puts in front of the text; so is `after` behind it.
        lower: whether it makes small letters of it and cuts off blanks.
        special: whether the tokenizer adds its special tokens.

    """

    tokenizer: str
    length: int
    masked: bool
    before: str
    after: str
    lower: bool
    special: bool

    def shown(self, text: str) -> str:
        """What the tokenizer is given."""
        return self.before + (text.lower().strip() if self.lower else text) + self.after
