"""What a task comes to that was not begun, or whose process died."""

from exporter.cluster.runner import RETRIES, WorkerDied, died, failed


def test_both_are_done_and_raise():
    error = KeyError("x")
    assert failed(error).exception() is error
    assert isinstance(died().exception(), WorkerDied)
    assert f"died {RETRIES + 1} times" in str(died().exception())
