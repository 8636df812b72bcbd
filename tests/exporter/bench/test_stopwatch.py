"""Where the time of a run goes, on a clock that the test turns."""

import inspect

import pytest

from exporter.bench.stopwatch import STAGES, Call, Stopwatch, stages


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def takes(self, seconds, answer=None):
        def function(*_args):
            self.now += seconds
            return answer

        return function


@pytest.fixture
def clock():
    return Clock()


def test_every_stage_has_its_place_and_together_they_are_the_whole(clock):
    watch = Stopwatch(clock)
    text = watch.watch("text", clock.takes(2))
    denoise = watch.watch("denoiser", clock.takes(8))
    decode = watch.watch("decoder", clock.takes(16))
    tick = clock.takes(1)

    def run(answer):
        tick(), text(), tick(), text()  # the tokenizer, and a copy between two towers
        clock.takes(4)(), denoise(), clock.takes(0.5)(), denoise()
        clock.takes(0.25)(), decode(), tick(), decode(), clock.takes(32)()
        return answer

    result, found = watch.time(run, "a picture")
    assert result == "a picture"
    assert found == {"text": 4, "denoiser": 16, "sampler": 4.75, "decoder": 32, "image": 32, "other": 3}
    assert sum(found.values()) == clock.now - 100.0
    assert tuple(found) == STAGES
    assert [call.role for call in watch.calls] == ["text", "text", "denoiser", "denoiser", "decoder", "decoder"]


def test_a_run_starts_from_nothing(clock):
    watch = Stopwatch(clock)
    text = watch.watch("text", clock.takes(2))
    watch.time(text)
    assert watch.time(clock.takes(3)) == (None, {**dict.fromkeys(STAGES, 0.0), "other": 3.0})
    assert watch.calls == []


def test_one_network_for_everything_is_a_stage_of_its_own():
    found = stages([Call("pipeline", 1.0, 9.0)], 0.0, 10.0)
    assert found == {**dict.fromkeys(STAGES, 0.0), "pipeline": 8.0, "image": 1.0, "other": 1.0}


def test_a_preview_in_between_is_the_decoders_time():
    calls = [Call("denoiser", 1.0, 2.0), Call("decoder", 2.5, 3.0), Call("denoiser", 3.5, 4.0)]
    found = stages(calls, 0.0, 6.0)
    assert found == {"text": 0.0, "denoiser": 1.5, "sampler": 1.0, "decoder": 0.5, "image": 2.0, "other": 1.0}


def test_what_is_watched_looks_as_before():
    def forward(sample, timestep=None):
        """Of a network."""
        return sample, timestep

    watched = Stopwatch().watch("denoiser", forward)
    assert inspect.signature(watched) == inspect.signature(forward)
    assert watched(1, timestep=2) == (1, 2)
