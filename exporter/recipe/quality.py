"""A recipe's wish for quality: scores of pictures, and what each must reach."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from engines.errors import RecipeError
from engines.strict import Frozen

Text = Annotated[str, StringConstraints(min_length=1)]
_SHARE = re.compile(r"(\d+(?:\.\d+)?) of source")


def _share(text: str) -> str:
    if _SHARE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no floor; write a number, or such as 0.98 of source")
    return text


#: A number, or a share of the source's score. The tags are no part of a place in the recipe.
Floor = Annotated[
    Annotated[float, Field(allow_inf_nan=False), Tag("|number")] | Annotated[str, AfterValidator(_share), Tag("|share")],
    Discriminator(lambda value: "|share" if isinstance(value, str) else "|number"),
]


class QualityFloor(Frozen):
    """What the pictures of a bundle must score, surely: at 95%, over so many prompts."""

    at_least: Floor = Field(
        description="a number, or a share of what the source scores with the recipe's sampler: 0.98 of source"
    )
    prompts: Text = Field(description="a file of them, one a line, that counts from the recipe's folder")
    count: int | None = Field(default=None, ge=2, description="of the prompts, the first so many; null takes all")
    seed: int = Field(default=0, ge=0, description="of the first picture; the next adds 1")
    options: dict[str, Any] = Field(default_factory=dict, description="of the score")

    @property
    def share(self) -> float | None:
        """Of the source's score; None where the floor is a number."""
        found = _SHARE.fullmatch(self.at_least) if isinstance(self.at_least, str) else None
        return float(found[1]) if found else None

    def texts(self, root: Path) -> tuple[str, ...]:
        """The prompts.

        Raises:
            RecipeError: the file cannot be read, or has fewer.

        """
        try:
            lines = (root / self.prompts).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"prompts {self.prompts!r} cannot be read ({error}); it counts from the recipe's folder") from error
        found = tuple(line.strip() for line in lines if line.strip())
        if len(found) < (self.count or 2):
            raise RecipeError(f"prompts {self.prompts!r} has {len(found)} prompts, and {self.count or 2} are needed")
        return found[: self.count]
