import pytest

from engines.errors import BundleError, MachineError, MissingDependency, UnsupportedError
from engines.serve import refusals


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnsupportedError("no such size"), 400, "invalid_value"),
        (BundleError("damaged"), 503, "model_unavailable"),
        (MissingDependency("onnxruntime", "onnxruntime"), 503, "model_unavailable"),
        (MachineError("the disk is full"), 503, "model_unavailable"),
        (MemoryError(), 503, "model_unavailable"),
        (KeyError("x"), 500, "internal_error"),
        (refusals.late(3), 504, "deadline_exceeded"),
        (refusals.stopping(), 503, "stopping"),
        (refusals.too_many(5, 0.2), 429, "rate_limit_exceeded"),
    ],
)
def test_who_must_act_decides_the_status(error, status, code):
    found = refusals.refusal_of(error, "abc")
    assert (found.status, found.code) == (status, code)
    assert len(found.text) > 5


def test_a_bug_says_where_the_log_says_more_and_nothing_of_itself():
    told = refusals.refusal_of(KeyError("secret"), "abc").text
    assert "request abc" in told
    assert "secret" not in told


def test_what_passes_says_when_to_come_again():
    for refusal in (refusals.too_many(5, 0.2), refusals.too_many(5, 12.4), refusals.stopping()):
        assert int(refusal.headers["retry-after"]) >= 1
    assert refusals.too_many(5, 12.4).headers["retry-after"] == "12"
