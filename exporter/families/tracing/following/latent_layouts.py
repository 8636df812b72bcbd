"""Which axis of a latent its channels are."""

from __future__ import annotations

import itertools

from engines.errors import UnsupportedError


def channels_first(latent: tuple[int, ...], size: tuple[int, int], name: str) -> tuple[int, ...]:
    """The shape of a latent behind the batch, of a pipeline of that name that is asked for a height and width in pixels.

    Raises:
        UnsupportedError: its channels are the last axis, as the sides tell which precede them.

    """
    asked, ratios = size[0] / size[1], [one / other for one, other in itertools.pairwise(latent)]
    if ratios[0] == asked and ratios[1] != asked and size[0] % latent[0] == 0:
        raise UnsupportedError(
            f"{name} draws noise of {list(latent)}, whose last axis are channels, and a bundle's are (channels, height, width): "
            "of a seed it would draw another picture than diffusers.\n  This is not built."
        )
    return latent
