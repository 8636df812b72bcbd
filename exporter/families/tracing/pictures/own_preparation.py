"""Pipelines that prepare their pictures by methods of their own: what these do, as data, held to the methods themselves.

DeepFloyd's have no image processor. Their method resizes a picture until its shorter side is the network's, in the way of a
bundle that is asked for that size, and brings its colours to [-1, 1]; that of a mask makes it black and white.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from engines.errors import UnsupportedError
from engines.images.preprocess import fed
from engines.inputs import Input, Preprocessing
from exporter.families.tracing.following import dry_run

#: Argument of the call → the method that prepares it, and what it makes of a picture.
_METHODS: Mapping[str, tuple[str, Preprocessing]] = {
    "image": ("preprocess_image", Preprocessing(resize="stretch", resample="bicubic", mean=(0.5,), std=(0.5,))),
    "mask_image": ("preprocess_mask_image", Preprocessing(resize="stretch", resample="bicubic", binarize=True)),
}
#: Of which arguments that is a mask, of one channel.
_MASKS = ("mask_image",)


def methods(pipeline: Any) -> dict[str, tuple[str, Preprocessing, bool]]:  # noqa: ANN401 - of diffusers
    """Argument of its call → its method, what that does, and whether it makes a mask of it; none of those with processors."""
    takes, kind = dry_run.arguments(pipeline), type(pipeline)
    found = {name: each for name, each in _METHODS.items() if name in takes and hasattr(kind, each[0])}
    return {name: (*each, name in _MASKS) for name, each in found.items()}


def stand_ins(pipeline: Any, note: Callable[[Tensor, Preprocessing, bool], Tensor]) -> dict[str, Any]:  # noqa: ANN401
    """What takes the place of these methods: it hands `note` what is given, what would be done, and whether it is a mask."""

    def taking(about: Preprocessing, grey: bool) -> Callable[[Any], Tensor]:  # noqa: FBT001
        return lambda image: note(image[0] if isinstance(image, list) else image, about, grey)

    return {method: taking(about, grey) for method, about, grey in methods(pipeline).values()}


def refuse_others(pipeline: Any, height: int, width: int) -> None:  # noqa: ANN401
    """Hold what is said of its methods to what they make of pictures of a size.

    Raises:
        UnsupportedError: they make something else of them, or pictures of another size.

    """
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for argument, (method, about, grey) in methods(pipeline).items():
        picture, name = Image.fromarray(levels), type(pipeline).__name__
        made = np.moveaxis(getattr(pipeline, method)(picture)[0].numpy(), 0, -1)
        if made.shape[:2] != (height, width):
            down, across = made.shape[:2]
            raise UnsupportedError(
                f"{name} makes {down} x {across} px of a picture of {height} x {width} (height x width).\n"
                "  Write the first under shapes."
            )
        entry = Input(kind="mask" if grey else "image", shape=("batch", height, width, 1 if grey else 3), preprocessing=about)
        if np.abs(made - fed(argument, entry, picture, height, width)).max() > 1e-6:
            raise UnsupportedError(f"{name} prepares its {argument} by code of its own, in a way that no bundle has.")
