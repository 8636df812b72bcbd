"""How prompts are read, as far as a recipe decides it."""

from __future__ import annotations

from pydantic import Field

from engines.strict import Frozen


class Prompts(Frozen):
    """How prompts are read; by default as diffusers' pipelines read them."""

    clip_skip: int | None = Field(
        default=None,
        ge=1,
        description="of each text encoder's last layers, so many are skipped for the prompt, not for the negative prompt, as "
        "clip_skip of diffusers' pipelines does; 1 here is 2 in A1111",
    )
