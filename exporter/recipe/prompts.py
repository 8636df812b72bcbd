"""How prompts are read, as far as a recipe decides it."""

from __future__ import annotations

from pydantic import Field

from engines.strict import Frozen
from engines.weighted_text import Syntax


class Prompts(Frozen):
    """How prompts are read; by default as diffusers' pipelines read them: 77 tokens, literally."""

    chunks: int = Field(
        default=1,
        ge=1,
        le=16,
        description="of 75 tokens of a prompt and two special ones; all are encoded, the last ones empty where a prompt is "
        "short, and joined along the tokens",
    )
    weights: Syntax | None = Field(
        default=None,
        description="syntax in which prompts say what their words count: a1111, (x:1.3), (x), [x], BREAK, or compel, x++, "
        "(x)1.3; by default prompts are taken literally",
    )

    clip_skip: int | None = Field(
        default=None,
        ge=1,
        description="of each text encoder's last layers, so many are skipped for the prompt, not for the negative prompt, as "
        "clip_skip of diffusers' pipelines does; 1 here is 2 in A1111",
    )
