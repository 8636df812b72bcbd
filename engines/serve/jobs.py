"""One picture in a server: what is asked for, how far it is, and who is told."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from engines.images.png import Format
from engines.samplers import Cancelled

_NUMBERS = itertools.count(1)
JobState = Literal["waiting", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class ImageRequest:
    """What a client asks for, in neither dialect.

    Attributes:
        model: name of the bundle.
        arguments: of `Pipeline.generate`, but for the seeds and how many; steps, or a sampler, are always there.
        seeds: one per picture.
        form: of the files.
        quality: of JPEG and WebP; None for the best that is reasonable.
        previews: how many pictures to tell on the way, spread over the steps.
        latents: one per picture, float32 (channels, latent height, latent width), where another bundle has begun them and
            `arguments` have `denoising_start`.

    """

    model: str
    arguments: Mapping[str, Any]
    seeds: tuple[int, ...]
    form: Format = "PNG"
    quality: int | None = None
    previews: int = 0
    latents: tuple[np.ndarray, ...] = ()

    @property
    def company(self) -> tuple[object, ...]:
        """What requests share that can be drawn in one call of `Pipeline.generate`."""
        own = self.arguments
        numbers = ("steps", "sampler", "height", "width", "generator", "strength", "denoising_start", "denoising_end")
        plain = tuple(own.get(name) for name in numbers)
        images = tuple((name, getattr(own.get(name), "size", None)) for name in ("image", "mask"))
        begun = {latent.shape for latent in self.latents}
        texts = tuple(name for name in ("prompt_2", "negative_prompt_2") if own.get(name) is not None)
        scaled = own.get("guidance_scale") is None
        return (*plain, *images, *begun, texts, scaled, tuple(sorted(own.get("inputs") or {})), tuple(own.get("loras") or ()))

    @property
    def preview_steps(self) -> frozenset[int]:
        """The steps, counted from 1, after which a preview is told; of a sampler that chooses its own, every one of the first."""
        steps = self.arguments.get("steps")
        if not steps:
            return frozenset(range(1, self.previews + 1))
        return frozenset(max(1, round(steps * index / (self.previews + 1))) for index in range(1, self.previews + 1)) - {steps}


@dataclass(frozen=True)
class Event:
    """News of a job: a preview, or its end."""

    job: Job
    kind: Literal["preview", "done", "failed", "cancelled"]
    data: bytes = b""
    step: int = 0


@dataclass(eq=False)
class Job:
    """One picture: a number of a request.

    Attributes:
        request: what it is of.
        index: which of the request's pictures.
        request_id: of the HTTP request, for the log.
        owner: who asked; nobody else is shown it, or can stop it.
        tell: called with every event, from any thread; must not block.
        step: steps taken.
        steps: of them in all; 0 while nobody knows.
        latest: the clean latent that the last step points to, float32 (1, C, H, W).
        data: the finished file.
        left: what there is instead of a file where the request stops before the end, as the next request's `latents`.
        info: what it says of how it was made.
        error: why there is none.
        times: seconds of `time.perf_counter` by what happened: created, started, ended.
        spent: seconds by part.

    """

    request: ImageRequest
    index: int = 0
    request_id: str = ""
    owner: str = ""
    tell: Callable[[Event], None] = lambda _: None
    number: int = field(default_factory=lambda: next(_NUMBERS))
    state: JobState = "waiting"
    step: int = 0
    steps: int = 0
    latest: np.ndarray | None = None
    data: bytes = b""
    left: np.ndarray | None = None
    info: dict[str, str] = field(default_factory=dict[str, str])
    error: BaseException | None = None
    times: dict[str, float] = field(default_factory=lambda: {"created": time.perf_counter()})
    spent: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        self.on_cancel: Callable[[], None] = lambda: None
        self._gone = threading.Event()

    @property
    def seed(self) -> int:
        """Of this picture."""
        return self.request.seeds[self.index]

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants it any more."""
        return self._gone.is_set()

    def cancel(self) -> None:
        """Say that nobody wants it; it ends before the next call of a network."""
        self._gone.set()
        self.on_cancel()

    def check(self) -> None:
        """Raise Cancelled where nobody wants it."""
        if self.cancelled:
            raise Cancelled

    def start(self) -> None:
        """Note that it is being drawn."""
        self.state = "running"
        self.times["started"] = time.perf_counter()

    def spend(self, part: str, seconds: float) -> None:
        """Note time in a network, or in writing the file."""
        self.spent[part] = self.spent.get(part, 0.0) + seconds

    def end(self, error: BaseException | None = None) -> None:
        """Note how it ended, and tell; only the first end counts."""
        if "ended" in self.times:
            return
        self.times["ended"] = time.perf_counter()
        self.times.setdefault("started", self.times["ended"])
        self.error, self.latest = error, None
        self.state = "cancelled" if isinstance(error, Cancelled) else "failed" if error else "done"
        self.tell(Event(self, self.state))
