"""A bundle in a server: checked when the server starts, its engines open while there is room, drawn with in one of two ways."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from PIL import Image

from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.images import png
from engines.pipeline import Pipeline
from engines.samplers import Step
from engines.serve.batcher import Batcher, Observed
from engines.serve.jobs import Event, ImageRequest, Job
from engines.serve.options import ServeOptions
from engines.sessions import Wrap

#: `opener(path, wrap)`: a pipeline whose networks are what `wrap` makes of them.
Opener = Callable[[Path, Wrap], AbstractContextManager[Pipeline]]


class _Passed(Exception):  # noqa: N818 - what happened, and no error
    """Everything that is asked for was checked, and a network would run now."""


def _passed(_: Mapping[str, np.ndarray]) -> NoReturn:
    raise _Passed


def _begun(latents: Sequence[np.ndarray]) -> dict[str, Any]:
    """The argument of `Pipeline.generate` for pictures that another bundle has begun."""
    return {"image": [*latents]} if latents else {}


def ignored(_part: str, _items: int, _seconds: float) -> None:
    """For who does not watch."""


class ServedBundle:
    """One bundle of a server. Its owner says when to open and close, from one thread at a time.

    Attributes:
        name: by which clients ask for it.
        path: where it lies.
        bundle: itself.
        continuous: whether each picture has a thread and shares calls of the networks, or pictures are drawn together.
        batch: pictures at once.
        cost: bytes of the engine files that are in memory while it is open.
        state: of its engines.
        running: calls of `draw` that run now.
        used: when it was last asked for, by `time.monotonic`.
        checker: a pipeline without networks, which knows what can be asked for.

    Raises:
        BundleError: it is damaged.
        UnsupportedError: it has no engines, or cannot be batched as asked.

    """

    def __init__(self, name: str, path: Path, options: ServeOptions, opener: Opener, observed: Observed = ignored) -> None:
        self.name, self.path, self._opener = name, path, opener
        self.bundle = Bundle.open(path)
        self.bundle.verify()
        about = self.bundle.manifest
        self.checker = Pipeline(self.bundle, dict.fromkeys(about.running(), _passed))
        firsts = [part.signature.inputs[0].shape[0] for part in about.running().values()]
        least = max(part.signature.lengths(dim)[0] for part, dim in zip(about.running().values(), firsts, strict=True))
        together = about.low_memory or least > 1
        if together and options.batching == "continuous":
            many = f"its networks take no less than {least} pictures"
            why = "low_memory opens one network at a time" if about.low_memory else many
            raise UnsupportedError(f"{path} cannot be batched continuously: {why}. Leave batching at auto.")
        self.continuous = not together and options.batching != "fixed"
        self.batch = min(self.checker.batch, options.batch or self.checker.batch)
        self.batcher = Batcher(about, options.wait_ms / 1000 if self.continuous else 0, self.batch, observed)
        engines = [{file for engine in part.engines.values() for file in engine.files} for part in about.running().values()]
        sizes = [sum(about.files[file].size for file in files) for files in engines]
        self.cost = max(sizes, default=0) if about.low_memory else sum(sizes)
        self.state: Literal["closed", "opening", "open", "closing"] = "closed"
        self.running, self.used, self.pipeline = 0, time.monotonic(), self.checker
        self.threads = ThreadPoolExecutor(self.slots, thread_name_prefix=f"draw-{name}")
        self._open = ExitStack()

    @property
    def slots(self) -> int:
        """Calls of `draw` at once."""
        return self.batch if self.continuous else 1

    def open(self) -> None:
        """Open its engines.

        Raises:
            T2IError: as `Pipeline.open`.

        """
        self.pipeline = self._open.enter_context(self._opener(self.path, self.batcher.wrap))

    def close(self) -> None:
        """Close its engines."""
        self.pipeline = self.checker
        self._open.close()

    def check(self, request: ImageRequest) -> None:
        """Raise UnsupportedError for what the bundle cannot do, before anything runs."""
        try:
            self.checker.generate(**request.arguments, **_begun(request.latents[:1]), seed=request.seeds[0])
        except _Passed:
            return
        raise AssertionError("a picture was drawn without a network")

    def draw(self, jobs: Sequence[Job]) -> None:
        """Draw pictures of one company in one call, and end every job with its file, or with what is left where it stops early.

        Raises:
            Exception: what the pipeline raises; then none was ended.

        """
        first = jobs[0].request.arguments
        together: dict[str, Any] = {**first, **_begun([job.request.latents[job.index] for job in jobs if job.request.latents])}
        if len(jobs) > 1:
            together |= {"prompts": [job.request.arguments["prompts"] for job in jobs]}
            for name in ("negative_prompt", "prompt_2", "negative_prompt_2", "guidance_scale", "image", "mask"):
                if first.get(name) is not None:
                    together[name] = [job.request.arguments.get(name) for job in jobs]
            fed: list[dict[str, Any]] = [job.request.arguments.get("inputs") or {} for job in jobs]
            together["inputs"] = {name: [one[name] for one in fed] for name in fed[0]}
        together |= {"seed": [job.seed for job in jobs], "on_step": functools.partial(self._stepped, jobs)}
        with self.batcher.drawing(jobs):
            if "denoising_end" in first:
                for job, left in zip(jobs, self.pipeline.latents(**together), strict=True):
                    job.left = left
                    job.end()
                return
            pictures = self.pipeline.generate(**together)
        for job, picture in zip(jobs, pictures, strict=True):
            self._finish(job, picture)

    def _finish(self, job: Job, picture: Image.Image) -> None:
        start = time.perf_counter()
        job.info = {str(key): str(value) for key, value in picture.info.items()}
        job.data = png.encode(picture, job.request.form, quality=job.request.quality)
        job.spend("encode", time.perf_counter() - start)
        job.end()

    def _stepped(self, jobs: Sequence[Job], step: Step) -> None:
        if all(job.cancelled for job in jobs):
            jobs[0].check()
        for index, job in enumerate(jobs):
            job.step, job.steps = step.index, step.total or 0
            if step.preview is not None:
                job.latest = step.preview[index : index + 1]
                if step.index in job.request.preview_steps and not job.cancelled:
                    job.tell(Event(job, "preview", self.shown(job.latest, job.request), step.index))

    def shown(self, latent: np.ndarray, request: ImageRequest) -> bytes:
        """A file of the clean latent that a step points to."""
        (image,) = self.pipeline.decode(latent)
        return png.encode(png.picture(image, {}), request.form, quality=request.quality)
