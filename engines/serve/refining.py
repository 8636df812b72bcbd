"""Two bundles for one picture: the first stops before its end, and another, SDXL's refiner, goes on from its latents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from starlette.requests import Request

from engines.errors import UnsupportedError
from engines.serve.desk import Desk
from engines.serve.jobs import ImageRequest, Job
from engines.serve.refusals import invalid
from engines.serve.served import ServedBundle
from engines.sizes import Sizes

#: What both are told alike; LoRAs and inputs are the first one's alone.
_COMMON = ("prompts", "negative_prompt", "steps", "sampler", "guidance_scale", "generator")


async def draw(desk: Desk, request: Request, wish: ImageRequest, refiner: ServedBundle, share: float) -> list[Job]:
    """Draw all pictures of a request with its bundle up to a share of the noise's way, and to the end with another.

    Args:
        desk: takes both.
        request: of the client.
        wish: of the bundle that begins.
        refiner: the bundle that ends.
        share: between 0 and 1.

    Returns:
        The refiner's jobs, which are done.

    Raises:
        Refusal: one of the bundles cannot do it, which is found before either draws.

    """
    base = desk.bundles[wish.model].bundle
    sizes = {side: wish.arguments.get(side, getattr(base.manifest.defaults, side)) for side in ("height", "width")}
    first = replace(wish, arguments={**wish.arguments, "denoising_end": share})
    common = {name: wish.arguments[name] for name in _COMMON if name in wish.arguments}
    second = replace(wish, model=refiner.name, arguments={**common, **sizes, "denoising_start": share})
    await _check(desk, first)
    # Of the size, which was found to be one that can be made.
    blank = np.zeros(Sizes(base).latent(1, **sizes)[1:], np.float32)
    await _check(desk, replace(second, latents=(blank,) * len(wish.seeds)))
    begun = await desk.draw(request, first)
    return await desk.draw(request, replace(second, latents=tuple(job.left for job in begun if job.left is not None)))


async def _check(desk: Desk, wish: ImageRequest) -> None:
    try:
        await desk.check(wish)
    except UnsupportedError as error:
        raise invalid(f"{wish.model}: {error}", "refiner_checkpoint") from error
