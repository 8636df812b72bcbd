"""LoRAs that a bundle takes at run time, as a recipe asks for them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from engines.lora.layers import STEP, LoraLimits
from engines.strict import Frozen


class LoraSlots(Frozen):
    """Inputs for LoRAs on a component: how many at once, how large, and where."""

    max_rank: int = Field(
        default=64,
        ge=STEP,
        le=1024,
        multiple_of=STEP,
        description="largest rank of one LoRA in linear layers and 1 × 1 convolutions",
    )
    slots: int = Field(default=2, ge=1, le=64, description="LoRAs at once, of all images of a call together")
    conv_rank: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        multiple_of=STEP,
        description="largest rank in larger convolutions, which cost slots × conv_rank, used or not; null: max_rank; 0: none",
    )
    layers: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        default=(), description="names or patterns of the layers, such as '*.attn2.*'; empty: every layer inside a block"
    )

    @property
    def limits(self) -> LoraLimits:
        """What the bundle says of it."""
        conv = self.max_rank if self.conv_rank is None else self.conv_rank
        return LoraLimits(slots=self.slots, max_rank=self.max_rank, conv_rank=conv)
