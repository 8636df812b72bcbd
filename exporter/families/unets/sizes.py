"""Sizes of pictures that a UNet and a VAE take: what they are multiples of, and what a recipe that asks for others is told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engines.signature import Range, Signature

if TYPE_CHECKING:
    from engines.manifest import Tile
    from exporter.recipe.schema import Shapes

AXES = ("height", "width")
#: Pixels that every side must be a multiple of: the pipelines of diffusers draw no others.
_PIXELS = 8
#: Blocks of a UNet that halve by a convolution with padding, and double by nearest neighbour.
_CONVOLVED = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}


class LatentSizes:
    """Heights and widths of a recipe in the cells of a model's latent.

    A UNet halves the latent in every stage but the last. Sides that it cannot halve evenly it rounds up, and crops where it
    doubles, so that any number of cells will do; a recipe whose sizes are all even multiples needs no cropping, and gets none.

    Args:
        unet: its config.
        factor: pixels per cell and side.
        shapes: of the recipe.

    """

    def __init__(self, unet: Mapping[str, Any], factor: int, shapes: Shapes) -> None:
        self.unet, self.factor, self.shapes = unet, factor, shapes

    @property
    def halving(self) -> int:
        """Cells that the UNet halves evenly in each of its stages are multiples of this."""
        return 2 ** (len(self.unet.get("down_block_types", [""] * 4)) - 1)

    @property
    def crops(self) -> bool:
        """Whether sides of the recipe are no multiples of `halving`, so that the UNet must crop."""
        return any(allowed.multiple < self.halving for allowed in self.dims.values())

    @cached_property
    def dims(self) -> Mapping[str, Range]:
        """Cells along each axis: as many as the recipe says, in the largest steps that reach all of its sizes."""
        return {f"latent_{axis}": self._range(axis) for axis in AXES}

    def _range(self, axis: str) -> Range:
        cells = [length // self.factor for length in getattr(self.shapes, axis)]
        step = math.gcd(self.halving, *cells) if self._rounds_up else self.halving
        return Range(**dict(zip(("min", "typical", "max"), cells, strict=True)), multiple=step)

    @property
    def _rounds_up(self) -> bool:
        """Whether every stage of the UNet makes (n + 1) // 2 of n rows; others lose the last one, and stretch the rest."""
        kinds = {*self.unet.get("down_block_types", ()), *self.unet.get("up_block_types", ())}
        return kinds <= _CONVOLVED and self.unet.get("downsample_padding", 1) == 1

    def problems(self) -> Iterator[str]:
        """Sizes of the recipe that the model cannot draw."""
        even = self.factor * self.halving
        step = math.lcm(_PIXELS, self.factor if self._rounds_up else even)
        why = f"{self.factor} for the VAE times {self.halving} for the UNet"
        if self._rounds_up:
            why = f"diffusers draws no other sizes; {even} is what this UNet halves evenly"
        for axis in AXES:
            for length in dict.fromkeys(getattr(self.shapes, axis)):
                if length % step:
                    yield f"shapes.{axis}: {length} px is not a multiple of {step} ({why}); nearest: {_around(length, step)}"

    def tile_problems(self, tile: Tile) -> Iterator[str]:
        """Why a tile of the decoder does not fit."""
        step = max(allowed.multiple for allowed in self.dims.values())
        if tile.size % step:
            yield (
                f"components.vae_decoder.tile.size: {tile.size} is not a multiple of {step}, as all of this recipe's latents "
                f"are; nearest: {_around(tile.size, step)}"
            )


def _around(length: int, step: int) -> str:
    """The multiples around a length that is none."""
    below = length // step * step
    return f"{below} or {below + step}" if below else str(step)


def tiled(signature: Signature, most: int) -> Signature:
    """Restrict a decoder's contract to latents of a tile, whose sides are at most so many cells."""

    def cut(allowed: Range) -> Range:
        return allowed.model_copy(update={end: min(getattr(allowed, end), most) for end in ("min", "typical", "max")})

    sides = {name: cut(allowed) for name, allowed in signature.dims.items() if name != "batch"}
    return signature.model_copy(update={"dims": {**signature.dims, **sides}})
