"""Errors say who must act, and carry what they are about."""

import pickle
from pathlib import Path

import pytest

from engines.disk import DiskFull
from engines.errors import MissingDependency, RecipeError, T2IError, UnsupportedError


@pytest.mark.parametrize(
    ("problems", "text"),
    [
        ("a: wrong", "a: wrong\n1 problem; nothing was built."),
        (["a: wrong", "b: missing"], "a: wrong\nb: missing\n2 problems; nothing was built."),
        ([], "0 problems; nothing was built."),
    ],
)
def test_a_recipe_s_problems_are_counted(problems, text):
    error = RecipeError(problems)
    assert str(error) == text
    assert error.problems == ((problems,) if isinstance(problems, str) else tuple(problems))
    assert isinstance(error, T2IError)


def test_a_library_that_is_missing_says_what_to_install():
    error = MissingDependency("openvino", "intel")
    assert str(error) == "openvino is not installed, and this needs it.\n  pip install 't2iexport[intel]'"
    assert (error.library, error.extra) == ("openvino", "intel")
    assert str(MissingDependency("onnxruntime", "onnxruntime", "onnxruntime is half there")) == "onnxruntime is half there"


MANY = [RecipeError(["a: b", "c: d"]), MissingDependency("openvino", "intel"), DiskFull(Path("/"), "x")]


@pytest.mark.parametrize("error", MANY)
def test_an_error_travels_to_another_process_as_it_is(error):
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 - written beside
    assert type(arrived) is type(error)
    assert (str(arrived), vars(arrived)) == (str(error), vars(error))


def test_what_no_encoding_has_is_written_out():
    """A config in JSON may hold half a surrogate pair, and torch's words repeat it."""
    assert str(UnsupportedError("no attribute 'ü\ud800'")) == r"no attribute 'ü\ud800'"
    assert str(RecipeError(["a: '\ud800'"])).startswith(r"a: '\ud800'")
