"""Where the time of one run goes: networks are watched from outside, and what lies between their calls is named by its place."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

Result = TypeVar("Result")
#: In the order in which a picture passes them. Together they are the whole run, by construction.
#:
#: - `text`, `denoiser`, `decoder`: inside the networks of that role;
#: - `sampler`: between the end of the text networks and the start of the decoder, without the denoiser: arithmetic and noise;
#: - `image`: after the last network: from floats to pictures, and writing them as PNG;
#: - `other`: the rest, which is the tokenizer, reading the sampler, and copies between calls of text networks or decoder.
STAGES = ("text", "denoiser", "sampler", "decoder", "image", "other")


@dataclass(frozen=True)
class Call:
    """One call of a network: its role, when it began and ended in seconds."""

    role: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


class Stopwatch:
    """Notes when watched functions run, and divides a run's time by them.

    Attributes:
        calls: of the run that was timed last, in order.

    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.calls: list[Call] = []

    def watch(self, role: str, function: Callable[..., Result]) -> Callable[..., Result]:
        """Return the function, watched: a network of that role."""

        @wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Result:  # noqa: ANN401 - the function's own
            start = self._clock()
            result = function(*args, **kwargs)
            self.calls.append(Call(role, start, self._clock()))
            return result

        return watched

    def time(self, run: Callable[..., Result], *args: Any) -> tuple[Result, dict[str, float]]:  # noqa: ANN401 - the function's
        """Run once, on the arguments; return its result, and the seconds of each stage, which add up to the whole."""
        self.calls = []
        start = self._clock()
        result = run(*args)
        end = self._clock()
        return result, stages(self.calls, start, end)


def stages(calls: Sequence[Call], start: float, end: float) -> dict[str, float]:
    """Divide the time from start to end, given the calls in between, which do not overlap.

    A network of a role that is none of STAGES is a stage of its own, by the role's name.
    """
    found: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    for call in calls:
        found[call.role] = found.get(call.role, 0.0) + call.seconds
    denoising = [index for index, call in enumerate(calls) if call.role == "denoiser"]
    if denoising:
        first, last = denoising[0], denoising[-1]
        begin = calls[first - 1].end if first else calls[first].start
        finish = calls[last + 1].start if last + 1 < len(calls) else calls[last].end
        found["sampler"] = finish - begin - sum(call.seconds for call in calls[first : last + 1])
    found["image"] = end - calls[-1].end if calls else 0.0
    found["other"] = end - start - sum(found.values())
    return found
