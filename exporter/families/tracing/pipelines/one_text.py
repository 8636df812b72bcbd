"""Prompts for a pipeline that may want a single text: where it writes the list into one, that is the text itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class TextList(list[str]):
    """One text a picture.

    Attributes:
        written: whether the pipeline has put all of it into a text, as it does with the one text that it draws at a time.

    """

    written = False

    def __format__(self, spec: str) -> str:
        """The first of them."""
        return format(str(self), spec)

    def __str__(self) -> str:
        """The first of them."""
        self.written = True
        return self[0]


def checked(check: Callable[..., None]) -> Callable[..., None]:
    """A pipeline's check of what it is asked, of which prompts may also be a single text."""

    def judged(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the pipeline's
        try:
            check(*args, **kwargs)
        except (TypeError, ValueError) as error:
            try:
                check(*map(_text, args), **{name: _text(value) for name, value in kwargs.items()})
            except (TypeError, ValueError):
                raise error from None

    return judged


def plain(value: Any) -> Any:  # noqa: ANN401 - an argument
    """Such a list as any other, for who compares the types of prompts; else the value itself."""
    return list(value) if isinstance(value, TextList) else value


def _text(value: Any) -> Any:  # noqa: ANN401 - an argument
    return value[0] if isinstance(value, TextList) else value
