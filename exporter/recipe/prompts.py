"""How prompts are read, as far as a recipe decides it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from engines.strict import Frozen
from engines.weighted_text import Syntax

Text = Annotated[str, StringConstraints(min_length=1)]


class Embedding(Frozen):
    """A textual inversion: a word that prompts can use."""

    source: Text = Field(description="a .safetensors file, a folder with one, or a hub id")
    token: Text | None = Field(default=None, description="the word; by default what the file calls it, else the file's name")
    weight_name: Text | None = Field(default=None, description="which file, where source has several")
    revision: str | None = Field(default=None, description="hub revision; the resolved commit goes into the bundle")


#: By its source alone, or with more said.
AnEmbedding = Annotated[
    Annotated[Text, AfterValidator(lambda source: Embedding(source=source)), Tag("|text")]
    | Annotated[Embedding, Tag("|mapping")],
    Discriminator(lambda value: "|text" if isinstance(value, str) else "|mapping"),
]


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

    downweighted: int = Field(
        default=4,
        ge=0,
        le=16,
        description="with weights: compel, groups of words of one prompt that may count less than 1; the text encoders run once "
        "more for each, whether a prompt has them or not",
    )

    clip_skip: int | None = Field(
        default=None,
        ge=1,
        description="of each text encoder's last layers, so many are skipped for the prompt, not for the negative prompt, as "
        "clip_skip of diffusers' pipelines does; 1 here is 2 in A1111",
    )

    def problems(self, layers: int) -> list[str]:
        """What does not fit text encoders of which so many layers can be skipped."""
        if self.clip_skip is None or self.clip_skip <= layers:
            return []
        return [f"prompts.clip_skip: {self.clip_skip} is more than the text encoders' layers allow; take at most {layers}"]
