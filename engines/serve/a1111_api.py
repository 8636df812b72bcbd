"""A1111's API, as far as programs that speak it need it: pictures, progress, models, samplers, options."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from PIL import ImageOps
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engines.images.png import Format
from engines.serve import received, refining
from engines.serve.described import samplers
from engines.serve.desk import Desk, given, owner
from engines.serve.jobs import ImageRequest, Job
from engines.serve.refusals import Refusal, invalid
from engines.serve.served import ServedBundle

_FORMS: Mapping[str, Format] = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
#: A LoRA in a prompt: name, and scale.
_LORA = re.compile(r"<lora:([^:<>]+)(:([^:<>]*))?>")
#: What would change the picture, and what value of it changes nothing.
_UNCHANGED: Mapping[str, tuple[Any, ...]] = {
    "enable_hr": (False,),
    "tiling": (False,),
    "restore_faces": (False,),
    "script_name": ("", "None"),
    "styles": ([],),
    "subseed_strength": (0,),
    "alwayson_scripts": ({},),
    "s_churn": (0,),
    "mask_blur": (0, 4),
    "inpaint_full_res": (False, 0),
    "inpainting_fill": (1,),
    "include_init_images": (False, True),
    "resize_mode": (0,),
}
_SETTINGS: Mapping[str, tuple[Any, ...]] = {"sd_vae": ("Automatic", "None"), "CLIP_stop_at_last_layers": (1,)}


class A1111Body(BaseModel):
    """A request of A1111's; what it says beside this is looked at for what would change the picture."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    prompt: str = ""
    negative_prompt: str = ""
    seed: int = -1
    steps: int | None = Field(default=None, ge=1)
    cfg_scale: float | None = None
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    sampler_name: str | None = None
    sampler_index: str | None = None
    batch_size: int = Field(default=1, ge=1)
    n_iter: int = Field(default=1, ge=1)
    init_images: list[str] = Field(default_factory=list)
    mask: str | None = None
    inpainting_mask_invert: int = 0
    denoising_strength: float | None = None
    override_settings: dict[str, Any] = Field(default_factory=dict)
    send_images: bool = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = Field(default=None, gt=0, le=1)


class A1111Routes:
    """The routes under /sdapi/v1. Like A1111 it remembers which model was chosen last, for all clients."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._chosen = next(iter(desk.bundles))

    def routes(self) -> list[Route]:
        """Of Starlette."""
        empty = ("upscalers", "sd-vae", "hypernetworks", "face-restorers", "prompt-styles", "schedulers", "scripts")
        at = "/sdapi/v1"
        return [
            Route(f"{at}/txt2img", self.txt2img, methods=["POST"]),
            Route(f"{at}/img2img", self.img2img, methods=["POST"]),
            Route(f"{at}/progress", self.progress, methods=["GET"]),
            Route(f"{at}/interrupt", self.interrupt, methods=["POST"]),
            Route(f"{at}/sd-models", self.models, methods=["GET"]),
            Route(f"{at}/samplers", self.samplers, methods=["GET"]),
            Route(f"{at}/loras", self.loras, methods=["GET"]),
            Route(f"{at}/options", self.options, methods=["GET"]),
            Route(f"{at}/options", self.set_options, methods=["POST"]),
            *[Route(f"{at}/{name}", _nothing, methods=["GET"]) for name in empty],
        ]

    async def txt2img(self, request: Request) -> Response:
        """Pictures of a prompt."""
        asked = await received.body(request, A1111Body)
        return await self._draw(request, asked, {})

    async def img2img(self, request: Request) -> Response:
        """Pictures of a prompt, from an image, which a mask may keep in part."""
        asked = await received.body(request, A1111Body)
        if len(asked.init_images) != 1:
            raise invalid(f"init_images holds {len(asked.init_images)} pictures; send one.", "init_images")
        limit = self._desk.options.max_input_pixels
        image = received.from_base64(asked.init_images[0], limit, "init_images")
        mask = asked.mask and received.from_base64(asked.mask, limit, "mask")
        if mask and asked.inpainting_mask_invert:
            mask = ImageOps.invert(mask.convert("L"))
        return await self._draw(request, asked, {"image": image, "mask": mask or None, "strength": asked.denoising_strength})

    async def _draw(self, request: Request, asked: A1111Body, images: Mapping[str, Any]) -> Response:
        _unchanged(asked.model_extra or {}, _UNCHANGED, "")
        settings = dict(asked.override_settings)
        served = self._served(settings.pop("sd_model_checkpoint", None))
        form = str(settings.pop("samples_format", "png")).lower()
        if form not in _FORMS:
            raise invalid(f"samples_format {form!r} is none of {', '.join(_FORMS)}.", "override_settings")
        _unchanged(settings, _SETTINGS, "override_settings.")
        about = served.bundle.manifest
        name = self._sampler(served, asked.sampler_name or asked.sampler_index)
        prompt, loras = without_loras(asked.prompt)
        arguments = {
            "prompts": prompt,
            "loras": self._desk.loras(loras),
            "negative_prompt": asked.negative_prompt or None,
            "steps": None if name else asked.steps or about.defaults.steps,
            "sampler": name,
            "height": asked.height,
            "width": asked.width,
            "guidance_scale": asked.cfg_scale,
            **images,
        }
        seeds = self._desk.seeds(asked.seed, asked.batch_size * asked.n_iter)
        wish = ImageRequest(served.name, given(arguments), seeds, _FORMS[form])
        refiner, share = self._refiner(asked, served)
        drawing = refining.draw(self._desk, request, wish, refiner, share) if refiner else self._desk.draw(request, wish)
        jobs = await drawing
        pictures = [base64.b64encode(job.data).decode() for job in jobs] if asked.send_images else []
        sent = asked.model_dump(exclude={"init_images", "mask"})
        info = _info(jobs, served)
        if refiner:
            info["extra_generation_params"] = {"Refiner": _model(refiner)["title"], "Refiner switch at": share}
        return JSONResponse({"images": pictures, "parameters": sent, "info": json.dumps(info)})

    def _refiner(self, asked: A1111Body, served: ServedBundle) -> tuple[ServedBundle | None, float]:
        """The bundle that is to end what `served` begins, and from where on; None where it is to end it itself."""
        if asked.refiner_checkpoint in {None, "", "None", "none"} or asked.refiner_switch_at == 1:
            return None, 1.0
        if asked.refiner_switch_at is None:
            raise invalid("say from which share of the steps on the refiner draws, such as 0.8.", "refiner_switch_at")
        refiner = self._served(asked.refiner_checkpoint)
        if refiner is served:
            raise invalid(f"{served.name} is the model itself. Name the bundle of a refiner, or none.", "refiner_checkpoint")
        return refiner, asked.refiner_switch_at

    def _sampler(self, served: ServedBundle, name: str | None) -> str | None:
        """None for the compiled sampler, else one that chooses its own steps; raise Refusal for one that is not there."""
        known = samplers(served)
        compiled = next(iter(known))
        if not name or name.lower() in {"automatic", compiled.lower(), *(alias.lower() for alias in known[compiled])}:
            return None
        if name.partition(":")[0] in list(known)[1:]:
            return name
        there = ", ".join([*(known[compiled] or [compiled]), *list(known)[1:]])
        text = f"no sampler {name!r} in {served.name}: a bundle's sampler is compiled into it. There are: {there}."
        raise invalid(text, "sampler_name")

    def _served(self, title: object) -> ServedBundle:
        """The bundle of a title, or of a name; the one chosen last where nothing is said."""
        return self._desk.served(str(title).partition(" [")[0] if title else self._chosen)

    async def progress(self, request: Request) -> Response:
        """How far the caller's oldest picture is, and how it looks; nobody else's is told."""
        mine = self._own(request)
        job = next((job for job in mine if job.state == "running"), mine[0] if mine else None)
        shown = b""
        if job and request.query_params.get("skip_current_image", "").lower() not in {"true", "1"}:
            shown = await asyncio.to_thread(self._desk.dispatcher.shown, job)
        step, steps = (job.step, job.steps) if job else (0, 0)
        state = {"skipped": False, "interrupted": False, "stopping_generation": False, "job": job.request_id if job else ""}
        state |= {"job_count": len(mine), "job_timestamp": "0", "job_no": job.index if job else 0}
        state |= {"sampling_step": step, "sampling_steps": steps}
        done = min(1.0, step / steps) if steps else 0.0
        current = base64.b64encode(shown).decode() if shown else None
        return JSONResponse({"progress": done, "eta_relative": 0.0, "state": state, "current_image": current, "textinfo": None})

    async def interrupt(self, request: Request) -> Response:
        """Stop the caller's pictures."""
        for job in self._own(request):
            job.cancel()
        return JSONResponse({})

    def _own(self, request: Request) -> list[Job]:
        dispatcher = self._desk.dispatcher
        return [job for job in [*dispatcher.drawing, *dispatcher.waiting] if job.owner == owner(request)]

    async def models(self, _request: Request) -> Response:
        """Every bundle, as a checkpoint."""
        return JSONResponse([_model(served) for served in self._desk.bundles.values()])

    async def samplers(self, _request: Request) -> Response:
        """Samplers of the chosen bundle by A1111's names."""
        pairs = [(name, *aliases) for name, aliases in samplers(self._served(None)).items()]
        return JSONResponse([{"name": name, "aliases": others, "options": {}} for *others, name in pairs])

    async def loras(self, _request: Request) -> Response:
        """The LoRAs that a prompt may name, as <lora:name:0.8>."""
        return JSONResponse([{"name": name, "alias": name, "path": name, "metadata": {}} for name in self._desk.options.loras])

    async def options(self, _request: Request) -> Response:
        """Settings that clients ask for."""
        told = _model(self._served(None))
        same = {"samples_format": "png", "sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1}
        return JSONResponse({"sd_model_checkpoint": told["title"], "sd_checkpoint_hash": told["sha256"], **same})

    async def set_options(self, request: Request) -> Response:
        """Choose the model; another setting may be sent back as it was."""
        asked = (await received.body(request, _Settings)).model_extra or {}
        now = json.loads(bytes((await self.options(request)).body))
        for name, value in asked.items():
            if name != "sd_model_checkpoint" and (name not in now or value != now[name]):
                raise invalid(f"{name} cannot be set: a bundle is what it was built as. Only sd_model_checkpoint can.", name)
        if "sd_model_checkpoint" in asked:
            self._chosen = self._served(asked["sd_model_checkpoint"]).name
        return JSONResponse(None)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="allow")


async def _nothing(_request: Request) -> Response:
    """What a bundle has none of."""
    return JSONResponse([])


def without_loras(prompt: str) -> tuple[str, dict[str, float]]:
    """A prompt without its `<lora:name:0.8>`, and these by name; raise Refusal for a scale that is no number."""
    found: dict[str, float] = {}
    for name, _, scale in _LORA.findall(prompt):
        try:
            found[name] = found.get(name, 0.0) + (float(scale) if scale else 1.0)
        except ValueError as error:
            raise invalid(f"<lora:{name}:{scale}>: {scale!r} is no number.", "prompt") from error
    return _LORA.sub("", prompt).strip() if found else prompt, found


def error(refusal: Refusal) -> dict[str, Any]:
    """A refusal as A1111 shapes it."""
    return {"error": refusal.code, "detail": refusal.text, "body": "", "errors": refusal.text}


def _unchanged(asked: Mapping[str, Any], known: Mapping[str, tuple[Any, ...]], where: str) -> None:
    """Raise Refusal for what would change the picture and cannot be had; what is known to change nothing passes."""
    for name, value in asked.items():
        if name in known:
            if value is not None and value not in known[name]:
                raise invalid(f"{where}{name} is not supported by a bundle. Leave it out.", f"{where}{name}")
        elif where:
            there = ", ".join(["sd_model_checkpoint", "samples_format", *known])
            raise invalid(f"{where}{name} is not known. There are: {there}.", f"{where}{name}")


def _model(served: ServedBundle) -> dict[str, Any]:
    digest = served.bundle.manifest.model
    told = {"title": f"{served.name} [{digest[:10]}]", "model_name": served.name, "hash": digest[:10], "sha256": digest}
    return told | {"filename": served.name, "config": None}


def _info(jobs: list[Job], served: ServedBundle) -> dict[str, Any]:
    first = jobs[0].info
    told: dict[str, Any] = {"prompt": first.get("prompt", ""), "negative_prompt": first.get("negative_prompt", "")}
    told |= {"all_prompts": [job.info.get("prompt", "") for job in jobs], "seed": jobs[0].seed}
    told |= {"all_seeds": [job.seed for job in jobs], "width": int(first["width"]), "height": int(first["height"])}
    told |= {"cfg_scale": float(first["guidance_scale"])} if "guidance_scale" in first else {}
    told |= {"steps": int(first["steps"])} if "steps" in first else {}
    names = samplers(served)
    compiled = next(iter(names))
    told |= {"sampler_name": first.get("sampler") or (names[compiled] or [compiled])[0], "batch_size": len(jobs)}
    told |= {"sd_model_name": served.name, "sd_model_hash": served.bundle.manifest.model[:10]}
    texts = ["\n".join(f"{key}: {value}" for key, value in job.info.items()) for job in jobs]
    return told | {"infotexts": texts, "index_of_first_image": 0}
