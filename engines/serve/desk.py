"""Where both dialects hand in what they understood, and wait for pictures: limits, deadlines, and clients that go away."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request

from engines.plugins import did_you_mean
from engines.request import seeds
from engines.serve import refusals
from engines.serve.dispatcher import Dispatcher
from engines.serve.jobs import Event, ImageRequest, Job
from engines.serve.options import ServeOptions
from engines.serve.refusals import Refusal, invalid
from engines.serve.served import ServedBundle


class Desk:
    """Takes requests of any dialect.

    Attributes:
        bundles: by name; the first is drawn with where none is named.
        dispatcher: has them drawn.
        options: with the limits.

    """

    def __init__(self, dispatcher: Dispatcher, options: ServeOptions) -> None:
        self.bundles, self.dispatcher, self.options = dispatcher.bundles, dispatcher, options

    def served(self, model: str | None) -> ServedBundle:
        """Find a bundle by name, or the first; raise Refusal where there is none of that name."""
        if not model:
            return next(iter(self.bundles.values()))
        if model not in self.bundles:
            raise Refusal(404, f"no model {model!r}{did_you_mean(model, list(self.bundles))}", "model_not_found", "model")
        return self.bundles[model]

    def seeds(self, first: int | None, count: int) -> tuple[int, ...]:
        """A seed per picture, counting on from the first; of None and -1 from a random one."""
        return tuple(seeds(-1 if first is None else first, 1, count))

    def loras(self, scales: Mapping[str, float]) -> list[tuple[Path, float]] | None:
        """Files of LoRAs by the names that the server was started with; raise Refusal for another name."""
        known = self.options.loras
        for name in scales:
            if name not in known:
                near = did_you_mean(name, list(known)) if known else ": this server was started without any"
                raise invalid(f"no LoRA {name!r}{near}.", "loras")
        return [(known[name], scale) for name, scale in scales.items()] or None

    async def draw(self, request: Request, wish: ImageRequest) -> list[Job]:
        """Draw all pictures of a request, and return its jobs, which are done.

        Raises:
            Exception: of the first that failed; the others are given up.

        """
        drawing = await self.begin(request, wish)
        jobs = [event.job async for event in self.events(request, drawing) if event.kind == "done"]
        return sorted(jobs, key=lambda job: job.index)

    async def check(self, wish: ImageRequest) -> None:
        """Raise what is wrong with a request, before anything is drawn."""
        served = self.bundles[wish.model]
        self._within_limits(served, wish)
        await asyncio.to_thread(served.check, wish)

    async def begin(self, request: Request, wish: ImageRequest) -> Drawing:
        """Check a request and put it into the queue; raise what is wrong with it, or Refusal where there is no place."""
        served = self.bundles[wish.model]
        self._within_limits(served, wish)
        if not self.dispatcher.idle(served):  # else it is drawn at once, which finds the same faults
            await asyncio.to_thread(served.check, wish)
        news: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(news.put_nowait, event)

        told: dict[str, Any] = {"request_id": request.state.request_id, "owner": owner(request), "tell": tell}
        jobs = [Job(wish, index, **told) for index in range(len(wish.seeds))]
        request.state.jobs = [*getattr(request.state, "jobs", ()), *jobs]
        self.dispatcher.submit(jobs)
        return Drawing(jobs, news)

    async def events(self, request: Request, drawing: Drawing) -> AsyncGenerator[Event]:
        """News of a request until its last picture is there; whoever stops listening gives it up.

        Raises:
            Refusal: it took too long.
            ClientDisconnect: the client went away.
            Exception: of the first picture that failed.

        """
        seconds = min(self.options.deadline, _wanted(request.headers.get("prefer", "")))
        gone = asyncio.ensure_future(_disconnected(request))
        left = {job.number for job in drawing.jobs}
        # One for the whole request, whose pictures another bundle may have begun.
        until = request.state.until = getattr(request.state, "until", asyncio.get_running_loop().time() + seconds)
        try:
            while left:
                following = asyncio.ensure_future(drawing.news.get())
                wait = until - asyncio.get_running_loop().time()
                done, _ = await asyncio.wait({following, gone}, timeout=max(0.0, wait), return_when=asyncio.FIRST_COMPLETED)
                if following not in done:
                    following.cancel()
                    raise ClientDisconnect if done else refusals.late(seconds)
                event = following.result()
                if event.kind == "cancelled":
                    raise Refusal(409, "the picture was cancelled.", "cancelled") from event.job.error
                # Not whether the job has failed by now: what was told before comes first.
                if event.kind == "failed" and event.job.error:
                    raise event.job.error
                left -= {event.job.number} if event.kind == "done" else set()
                yield event
        finally:
            gone.cancel()
            for job in drawing.jobs:
                if job.state in {"waiting", "running"}:
                    job.cancel()

    def _within_limits(self, served: ServedBundle, wish: ImageRequest) -> None:
        options, asked = self.options, wish.arguments
        if len(wish.seeds) > min(options.max_images, options.queue):
            raise invalid(f"{len(wish.seeds)} pictures at once, and {min(options.max_images, options.queue)} are allowed.", "n")
        for name in ("prompts", "negative_prompt", "prompt_2", "negative_prompt_2"):
            if len(asked.get(name) or "") > options.max_prompt:
                raise invalid(
                    f"the {name.removesuffix('s')} has {len(asked[name])} characters, and {options.max_prompt} are allowed.",
                    name.removesuffix("s"),
                )
        if (asked.get("steps") or 0) > options.max_steps:
            raise invalid(f"{asked['steps']} steps, and {options.max_steps} are allowed.", "steps")
        defaults = served.bundle.manifest.defaults
        image = asked.get("image")
        width, height = image.size if image else (defaults.width, defaults.height)
        width, height = asked.get("width") or width, asked.get("height") or height
        if width * height > options.max_pixels:
            raise invalid(f"{width}x{height} are more than the {options.max_pixels} pixels that are allowed.", "size")


class Drawing:
    """Jobs of one request, and what is told of them."""

    def __init__(self, jobs: Sequence[Job], news: asyncio.Queue[Event]) -> None:
        self.jobs, self.news = jobs, news


def owner(request: Request) -> str:
    """Who asks: by key and address, as far as they can be told apart."""
    told = f"{request.client.host if request.client else ''} {request.headers.get('authorization', '')}"
    return hashlib.sha256(told.encode()).hexdigest()


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left out."""
    return {name: value for name, value in arguments.items() if value is not None}


def _wanted(prefer: str) -> float:
    """Seconds that a client would wait, of the header `Prefer: wait=30` (RFC 7240)."""
    found = re.search(r"\bwait=(\d{1,6})\b", prefer)
    return max(1.0, float(found[1])) if found else math.inf


async def _disconnected(request: Request) -> None:
    """Return when the client has gone away; the request's body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
