"""A step runs as it is at first, is then captured once, and replayed on what later calls are given."""

from contextlib import contextmanager

import pytest
import torch

from exporter.training.cuda_graph import Capture


@pytest.fixture
def cuda(monkeypatch):
    """CUDA's graphs and streams on the processor: what is captured is run again on the same tensors."""
    log, capturing = [], []

    class Graph:
        def replay(self):
            log.append("replay")
            self.again()

    class Stream:
        def wait_stream(self, other):
            log.append("wait")
            assert other is not self

    @contextmanager
    def graph(made):
        capturing.append(made)
        log.append("capture")
        yield
        capturing.pop()

    @contextmanager
    def stream(side):
        assert isinstance(side, Stream)
        yield

    usual = Stream()
    for name, value in {
        "CUDAGraph": Graph, "graph": graph, "Stream": Stream, "stream": stream, "current_stream": lambda: usual,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    return log, capturing


def test_three_steps_as_they_are_then_one_capture_then_replays(cuda):
    log, capturing = cuda
    ran = []

    def step(a, b):
        ran.append((a, b))
        told = a * 10 + b
        if capturing:
            capturing[0].again = lambda: told.copy_(a * 10 + b)
        return told

    capture = Capture(step)
    answers = [capture(torch.tensor(float(number)), torch.tensor(1.0)) for number in range(7)]
    assert [float(each) for each in answers] == [10.0 * number + 1 for number in range(7)], "each keeps its own answer"
    assert len(ran) == 4, "three as they are, and the captured one"
    assert [each for each in log if each != "wait"] == ["capture", *["replay"] * 4]
    assert log.count("wait") == 2 * 3


def test_what_is_captured_reads_tensors_of_its_own(cuda):
    _, capturing = cuda
    given, held = [torch.tensor(float(number)) for number in range(5)], []

    def step(a):
        if capturing:
            held.append(a)
            capturing[0].again = lambda: None
        return a + 0

    capture = Capture(step)
    for each in given:
        capture(each)
    assert float(held[0]) == 4.0, "the last call's value was copied there"
    assert float(given[3]) == 3.0
    with pytest.raises(ValueError, match="zip"):
        capture(given[0], given[1])
