"""OpenAI's images API: generations, edits, models; with what our bundles take beside it as extra fields."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal

from PIL import Image, ImageOps
from pydantic import Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from engines.images.png import Format
from engines.manifest import Generator
from engines.serve import logs, received
from engines.serve.described import described
from engines.serve.desk import Desk, Drawing, given
from engines.serve.jobs import Event, ImageRequest, Job
from engines.serve.refusals import Refusal, invalid, refusal_of
from engines.serve.served import ServedBundle
from engines.serve.shelf import Shelf
from engines.strict import Frozen

_FORMS: Mapping[str, Format] = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
#: More than a person can follow.
_PREVIEWS = 50


class ImagesBody(Frozen):
    """A request of OpenAI's; the second part is ours. What is left out, or null, is the bundle's default."""

    prompt: str = ""
    model: str | None = None
    n: int | None = Field(default=None, ge=1)
    size: str | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: int | None = Field(default=None, ge=0, le=100)
    stream: bool | None = None
    partial_images: int | None = Field(default=None, ge=0, le=_PREVIEWS)
    background: Literal["auto", "opaque"] | None = None
    #: Taken and not used: nothing here answers to them.
    quality: str | None = None
    style: str | None = None
    moderation: str | None = None
    input_fidelity: str | None = None
    user: str | None = None
    safety_identifier: str | None = None

    negative_prompt: str | None = None
    prompt_2: str | None = None
    negative_prompt_2: str | None = None
    seed: int | None = None
    generator: Generator | None = None
    num_inference_steps: int | None = Field(default=None, ge=1)
    sampler: str | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    inputs: dict[str, float | str] | None = None
    loras: dict[str, float] | None = None

    def pixels(self) -> tuple[int | None, int | None]:
        """Height and width; None where they are left to the bundle, or to the image."""
        if self.size in {None, "", "auto"}:
            return None, None
        if not (found := re.fullmatch(r"(\d{1,5})x(\d{1,5})", self.size or "")):
            raise invalid(f"size {self.size!r} is none. Write WIDTHxHEIGHT, such as 512x512, or auto.", "size")
        return int(found[2]), int(found[1])


class OpenAIRoutes:
    """The routes under /v1."""

    def __init__(self, desk: Desk, shelf: Shelf) -> None:
        self._desk, self._shelf = desk, shelf
        self._created = int(time.time())

    def routes(self) -> list[Route]:
        """Of Starlette."""
        return [
            Route("/v1/images/generations", self.generations, methods=["POST"]),
            Route("/v1/images/edits", self.edits, methods=["POST"]),
            Route("/v1/images/files/{name}", self.file, methods=["GET"], name="file"),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model}", self.model, methods=["GET"]),
        ]

    async def models(self, _request: Request) -> Response:
        """Every bundle, with what it takes under a key of ours."""
        data = [self._model(served) for served in self._desk.bundles.values()]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """One bundle."""
        return JSONResponse(self._model(self._desk.served(request.path_params["model"])))

    def _model(self, served: ServedBundle) -> dict[str, Any]:
        own = {"id": served.name, "object": "model", "created": self._created, "owned_by": "t2iexport"}
        return {**own, "t2iexport": described(served, self._desk.options)}

    async def generations(self, request: Request) -> Response:
        """Pictures of a prompt."""
        asked = await received.body(request, ImagesBody)
        served = self._desk.served(asked.model)
        if asked.strength is not None:
            raise invalid("strength says how an image changes, and there is none. Send it to /v1/images/edits.", "strength")
        return await self._answer(request, asked, self._wish(served, asked, {}), "image_generation")

    async def edits(self, request: Request) -> Response:
        """Pictures of a prompt, from an image, which a mask may keep in part."""
        form = await received.form(request)
        try:
            pictures, texts, limit = dict[str, Image.Image](), dict[str, str](), self._desk.options.max_input_pixels
            for name, value in form.multi_items():
                name = name.removesuffix("[]")  # noqa: PLW2901 - as the official client sends lists
                if name in pictures or name in texts:
                    raise invalid(f"{name} is given twice, and one is taken.", name)
                if name in {"image", "mask"} or not isinstance(value, str):
                    pictures[name] = await received.from_upload(value, limit, name)
                else:
                    texts[name] = value
        finally:
            await form.close()
        inputs = json_object(texts.pop("inputs", "{}"), "inputs")
        loras = json_object(texts.pop("loras", "{}"), "loras")
        asked = received.fields(texts, ImagesBody).model_copy(update={"loras": received.numbers(loras, "loras")})
        if "image" not in pictures:
            raise Refusal(400, "image is missing. Send the picture to change as a file.", "missing_required_parameter", "image")
        image, mask = pictures.pop("image"), pictures.pop("mask", None)
        inputs |= pictures
        served = self._desk.served(asked.model)
        arguments = {"image": image, "mask": mask and white_is_anew(mask), "strength": asked.strength}
        return await self._answer(request, asked, self._wish(served, asked, arguments, inputs), "image_edit")

    def _wish(
        self, served: ServedBundle, asked: ImagesBody, images: Mapping[str, Any], inputs: Mapping[str, Any] | None = None
    ) -> ImageRequest:
        fed = {**(asked.inputs or {}), **(inputs or {})}
        for name, value in fed.items():
            entry = served.bundle.manifest.inputs.get(name)
            if isinstance(value, str) and entry and entry.pictured:
                fed[name] = received.from_base64(value, self._desk.options.max_input_pixels, name)
        height, width = asked.pixels()
        defaults = served.bundle.manifest.defaults
        arguments = {
            "prompts": asked.prompt,
            "steps": (asked.num_inference_steps or defaults.steps) if asked.sampler is None else asked.num_inference_steps,
            **{name: getattr(asked, name) for name in ("negative_prompt", "prompt_2", "negative_prompt_2", "generator")},
            "sampler": asked.sampler,
            "guidance_scale": asked.guidance_scale,
            "height": height,
            "width": width,
            "inputs": fed,
            "loras": self._desk.loras(asked.loras or {}),
            **images,
        }
        return ImageRequest(
            model=served.name,
            arguments=given(arguments),
            seeds=self._desk.seeds(asked.seed, asked.n or 1),
            form=_FORMS[asked.output_format or "png"],
            quality=asked.output_compression or None,
            previews=asked.partial_images or 0 if asked.stream else 0,
        )

    async def _answer(self, request: Request, asked: ImagesBody, wish: ImageRequest, kind: str) -> Response:
        if asked.stream:
            drawing = await self._desk.begin(request, wish)
            stream = self._stream(request, drawing, kind)
            # What goes wrong before the first event is still a status of its own.
            first = await anext(stream)
            headers = {"cache-control": "no-store"}
            return StreamingResponse(_behind(first, stream), media_type="text/event-stream", headers=headers)
        jobs = await self._desk.draw(request, wish)
        data = [self._datum(request, asked, job) for job in jobs]
        return JSONResponse({"created": int(time.time()), "data": data, **_facts(jobs[0]), "usage": _USAGE})

    def _datum(self, request: Request, asked: ImagesBody, job: Job) -> dict[str, Any]:
        own = {"seed": job.seed, "info": job.info}
        if asked.response_format == "url":
            name = self._shelf.put(job.data, asked.output_format or "png")
            return {"url": str(request.url_for("file", name=name)), **own}
        return {"b64_json": base64.b64encode(job.data).decode(), **own}

    async def _stream(self, request: Request, drawing: Drawing, kind: str) -> AsyncGenerator[str]:
        shown, begun = dict.fromkeys([job.number for job in drawing.jobs], 0), False
        try:
            async for event in self._desk.events(request, drawing):
                name = f"{kind}.completed" if event.kind == "done" else f"{kind}.partial_image"
                told = {"type": name, **_told(event), "created_at": int(time.time()), **_facts(event.job)}
                if event.kind == "done":
                    told |= {"usage": _USAGE, "seed": event.job.seed, "info": event.job.info}
                else:
                    told |= {"partial_image_index": shown[event.job.number], "step": event.step, "steps": event.job.steps}
                    shown[event.job.number] += 1
                begun = True
                yield _sse(name, told)
        except Exception as problem:
            if not begun or isinstance(problem, ClientDisconnect):
                raise
            told_so = refusal_of(problem, request.state.request_id)
            logs.failed(request, told_so, problem)
            yield _sse("error", {"type": "error", **error(told_so)})

    async def file(self, request: Request) -> Response:
        """A picture that an answer named by URL; names are drawn at random, and nothing of the disk is read."""
        found = self._shelf.get(request.path_params["name"])
        if found is None:
            raise Refusal(404, "there is no such picture, or it was too long ago. Ask for it again.", "not_found")
        return Response(found[0], media_type=f"image/{found[1]}", headers={"cache-control": "private, max-age=3600"})


#: Nothing is counted or billed here; the official client expects the key.
_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


def error(refusal: Refusal) -> dict[str, Any]:
    """A refusal as OpenAI shapes it."""
    kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    return {"error": {"message": refusal.text, "type": kind, "param": refusal.param, "code": refusal.code}}


def white_is_anew(mask: Image.Image) -> Image.Image:
    """A mask in our sense: of one with transparency what is transparent is made anew, as OpenAI has it; else what is white."""
    if not mask.has_transparency_data:
        return mask
    alpha = mask.convert("RGBA").getchannel("A")
    return mask.convert("RGB") if alpha.getextrema() == (255, 255) else ImageOps.invert(alpha)


def json_object(text: str, name: str) -> dict[str, Any]:
    """Read the field of a form of that name, which holds a JSON object."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"{name} is no JSON: {error}.", name) from error
    if not isinstance(found, dict):
        raise invalid(f"{name} must be a JSON object, of names and values.", name)
    return {**found}


def _told(event: Event) -> dict[str, Any]:
    return {"b64_json": base64.b64encode(event.data or event.job.data).decode(), "index": event.job.index}


def _facts(job: Job) -> dict[str, Any]:
    form = next(name for name, form in _FORMS.items() if form == job.request.form)
    size = f"{job.info['width']}x{job.info['height']}" if job.info else "auto"
    return {"output_format": form, "background": "opaque", "quality": "auto", "size": size}


def _sse(name: str, told: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(told)}\n\n"


async def _behind(first: str, rest: AsyncGenerator[str]) -> AsyncGenerator[str]:
    try:
        yield first
        async for text in rest:
            yield text
    finally:
        await rest.aclose()
