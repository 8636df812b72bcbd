"""A bundle as a replica of Ray Serve: `serve.deployment(Replica).bind("bundles/demo")`. Ray is imported where it is used.

A picture of a seed is the same on every replica, so that whoever asks may ask again when one dies: `drawn` does.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from engines.errors import UnsupportedError
from engines.images.png import encode
from engines.manifest import Generator
from engines.pipeline import Pipeline
from engines.strict import Frozen, describe

if TYPE_CHECKING:
    from PIL import Image
    from starlette.requests import Request
    from starlette.responses import Response

#: Seeds that are drawn for who gives none: small enough to be typed again.
_SEEDS = 2**32


class _Body(Frozen):
    """What a request over HTTP may ask for, as `Pipeline.generate` calls it; null is as left out."""

    prompt: str
    negative_prompt: str | None = None
    prompt_2: str | None = None
    negative_prompt_2: str | None = None
    seed: int | None = None
    generator: Generator | None = None
    steps: int | None = None
    sampler: str | None = None
    height: int | None = None
    width: int | None = None
    guidance_scale: float | None = None


class Replica:
    """One process with a bundle's engines open; pictures are made in threads, so that it answers meanwhile."""

    def __init__(self, bundle: str, backend: str | None = None, **options: Any) -> None:  # noqa: ANN401 - the backend's
        """Open the bundle that lies at the same path on every machine, as `Pipeline.from_pretrained` does."""
        self._pipeline = Pipeline.from_pretrained(bundle, backend=backend, **options)

    async def draw(self, prompt: str, **wishes: Any) -> list[Image.Image]:  # noqa: ANN401 - the pipeline's
        """Make pictures, by the arguments of `Pipeline.generate`."""
        return await asyncio.to_thread(self._pipeline.generate, prompt, **wishes)

    async def __call__(self, request: Request) -> Response:
        """Answer HTTP: a JSON object of `Pipeline.generate`'s arguments, `prompt` among them, with a picture as PNG."""
        from starlette.responses import JSONResponse, Response  # noqa: PLC0415 - Ray Serve brings it

        try:
            asked = _Body.model_validate_json(await request.body(), strict=True)
            (made,) = await self.draw(**asked.model_dump(exclude_none=True))
        except ValidationError as error:
            return JSONResponse({"error": f"the body is no request for a picture:\n{describe(error)}"}, status_code=400)
        except UnsupportedError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return Response(encode(made, "PNG"), media_type="image/png")


async def drawn(handle: Any, prompt: str, tries: int = 3, **wishes: Any) -> list[Image.Image]:  # noqa: ANN401 - Ray's, the pipeline's
    """Have a deployment's replicas draw, and ask another one when the one that drew died; the seed is fixed before the first.

    Args:
        handle: of the deployment, as `serve.run` returns it.
        prompt: what to draw.
        tries: how many replicas may die meanwhile, and one more.
        wishes: other arguments of `Pipeline.generate`.

    Raises:
        UnsupportedError: the bundle cannot do what is asked.

    """
    died = importlib.import_module("ray.exceptions").RayActorError
    asked = {"seed": secrets.randbelow(_SEEDS), **wishes}
    for left in range(tries - 1, -1, -1):
        try:
            return await handle.draw.remote(prompt, **asked)
        except died:
            if not left:
                raise
    raise ValueError(f"{tries} tries are none; give 1 or more")
