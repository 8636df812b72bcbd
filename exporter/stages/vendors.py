"""A library's exception becomes the sentence of the stage in which it was raised; an exception of our own code stays a bug.

Who raised it is read off the traceback: docs/decisions/0023-whose-exception.md.
"""

from __future__ import annotations

import contextlib
import linecache
import traceback
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import engines
import exporter
from engines.disk import refusal
from engines.errors import RecipeError, T2IError, UnsupportedError

if TYPE_CHECKING:
    from exporter.recipe.schema import Recipe

#: Libraries that read what users bring: package → distribution. What others raise counts for whoever called them.
_LIBRARIES = {
    name: name.replace("_", "-")
    for name in (
        *("accelerate", "diffusers", "huggingface_hub", "onnx", "onnx_ir", "onnxscript", "peft", "safetensors", "tokenizers"),
        *("torch", "transformers"),
    )
}
_OURS = tuple(Path(str(package.__file__)).parent for package in (engines, exporter))
#: How a mode of ours ends that hands a function of torch on.
_PASSED_ON = "func(*args, **kwargs)"
#: Lines of a library's message that are shown from its beginning and from its end.
_FIRST, _LAST = 6, 4


@contextlib.contextmanager
def vendors(doing: str) -> Iterator[None]:
    """Turn what a library raises inside into UnsupportedError.

    Args:
        doing: the stage and for which part, with which the sentence begins.

    Raises:
        UnsupportedError: a library raised; the text has its words. What the machine refuses, and bugs, pass as they are.

    """
    try:
        yield
    except T2IError:
        raise
    except Exception as error:
        if told := sentence(error, doing):
            raise told from error
        raise


@contextlib.contextmanager
def located(recipe: Recipe) -> Iterator[None]:
    """Give problems that were found after the recipe was read its file and lines, and what a library says of its model words.

    Raises:
        RecipeError: as it was raised inside, each problem with its place.
        UnsupportedError: a library raised, as for `vendors`.

    """
    try:
        with vendors(f"model.source {recipe.model.source}"):
            yield
    except RecipeError as error:
        raise RecipeError(recipe.located(error.problems)) from error


def sentence(error: BaseException, doing: str) -> T2IError | None:
    """What a user is told of an exception that a library raised; None for a bug of ours, and for what the machine refuses."""
    if told := _refused(error):
        return told
    origin = _origin(error)
    library, place = raised_by(origin)
    if library is None or type(origin).__name__ == "OutOfMemoryError" or refusal(origin) is not None:
        return None
    return UnsupportedError(
        f"{doing}: {library} {metadata.version(_LIBRARIES[library])} cannot work with this model ({place}):\n"
        f"{_words(error)}\n"
        "  Compare the model's configs and files with those of a model of its kind that works. Where diffusers draws a\n"
        "  picture with it, this is a gap of t2iexport: report it with these lines."
    )


def raised_by(error: BaseException) -> tuple[str | None, str]:
    """The library that raised an exception, None where our own code did; and the line.

    The innermost frame that is ours or one of the libraries' decides: the standard library, numpy and the like raise for whoever
    called them. What we only look at while torch calls it is torch's callers'.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename)
        if any(path.is_relative_to(folder) for folder in _OURS):
            if linecache.getline(str(path), line).strip().endswith(_PASSED_ON):
                continue
            return None, f"{path}:{line}"
        package = (frame.f_globals.get("__name__") or "").partition(".")[0]
        if package in _LIBRARIES:
            return package, f"{frame.f_globals['__name__']}, line {line}"
    return None, ""


def _refused(error: BaseException) -> T2IError | None:
    """A sentence of our own that a library, in which our code was running, wrapped in an exception of its own."""
    cause = error.__cause__
    return cause if cause is None or isinstance(cause, T2IError) else _refused(cause)


def _origin(error: BaseException) -> BaseException:
    """Where an exception began that was raised again as another: a bug of ours stays one when a library passes it on."""
    return error if error.__cause__ is None else _origin(error.__cause__)


def _words(error: BaseException) -> str:
    """What the library said, its middle left out where it is long; of one raised again, what was said first as well."""
    said = [f"{type(each).__name__}: {each}".rstrip(": ") for each in dict.fromkeys((error, _origin(error)))]
    lines = [line.rstrip() for text in said for line in text.splitlines() if line.strip()]
    if len(lines) > _FIRST + _LAST:
        lines = [*lines[:_FIRST], f"… ({len(lines) - _FIRST - _LAST} lines)", *lines[-_LAST:]]
    return "\n".join(f"    {line}" for line in lines)
