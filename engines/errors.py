"""The tree of errors: the class says who must act, the text says what, where and what to do.

T2IError
├── RecipeError        exit 2   the recipe is wrong: all problems at once, file:line, did-you-mean
├── UnsupportedError   exit 3   this model, scheduler, op or target cannot be expressed; says what can
├── MissingDependency  exit 4   pip install 't2iexport[…]'
├── ParityError        exit 5   numbers out of limits: carries the blame table
├── SpeedError         exit 5   slower than the recipe allows: carries the figures
├── DivergenceError    exit 5   a training's loss is not finite: carries the step and where the last checkpoint is
├── BundleError        exit 6   damaged, hostile or too new
└── MachineError       exit 7   the machine refuses: a full disk, a place that cannot be written, no memory
    └── DiskFull                in engines.disk; names the disk

A command line that is wrong is exit 2 as well; 130 is Ctrl-C, 141 nobody reading what is printed. Anything else is a bug in
t2iexport: a traceback, exit 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class T2IError(Exception):
    """Root of every error that a user can act on; what is raised is one of its kinds."""

    exit_code: ClassVar[int]

    def __str__(self) -> str:
        """As it can be printed: half a surrogate pair, which JSON may hold and a library's words repeat, is written out."""
        return super().__str__().encode(errors="backslashreplace").decode()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as text and attributes, whatever the constructor takes."""
        return _arrived, (type(self), str(self), dict(self.__dict__))


def _arrived(kind: type[T2IError], text: str, attributes: dict[str, Any]) -> T2IError:
    error = kind.__new__(kind, text)
    error.__dict__.update(attributes)
    return error


class RecipeError(T2IError):
    """The recipe is wrong. Carries every problem found, one `file:line  path: message` each."""

    exit_code = 2

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}; nothing was built."
        super().__init__("\n".join([*self.problems, count]))


class UnsupportedError(T2IError):
    """A model, scheduler, operator, target or wish that cannot be expressed; the text says what can."""

    exit_code = 3


class MissingDependency(T2IError):  # noqa: N818 - the name says what happened, and reads well in an except clause
    """An optional library is absent, or a part of it; then `text` says so. `extra` is t2iexport's that installs it, or empty."""

    exit_code = 4

    def __init__(self, library: str, extra: str, text: str = "") -> None:
        wanted = f"'t2iexport[{extra}]'" if extra else library
        super().__init__(text or f"{library} is not installed, and this needs it.\n  pip install {wanted}")
        self.library, self.extra = library, extra


class ParityError(T2IError):
    """An engine's numbers are out of limits, or its images of less quality than asked; the text is the blame table."""

    exit_code = 5


class SpeedError(T2IError):
    """A bundle is slower, or a quantized network not the better one, than its recipe allows; the text is the figures."""

    exit_code = 5


class DivergenceError(T2IError):
    """A training's loss is NaN or infinite; the text names the step and the last checkpoint."""

    exit_code = 5


class BundleError(T2IError):
    """The bundle is damaged, hostile, or newer than this program."""

    exit_code = 6


class MachineError(T2IError):
    """The machine refuses: a disk is full, a place is not there or cannot be written, memory ran out; the text names it."""

    exit_code = 7
