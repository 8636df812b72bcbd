"""Pictures and captions as the denoiser sees them, encoded once into arrays on disk."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image, ImageOps

from engines.errors import UnsupportedError

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.training.captioned_images import CaptionedImage


def device() -> torch.device:
    """The accelerator of this machine, else the processor."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@torch.no_grad()
def captions(family: Family, texts: Sequence[str], folder: Path, batch: int) -> None:
    """Write `<port>.npy` for every output of every text tower, float16 (1 + texts, …); the first is the empty prompt's.

    Where there are two branches, the empty prompt is encoded as the negative one, which some models turn into zeros.
    """
    for tower in family.towers:
        signature = family.signature(tower)
        branches = int(signature.inputs[0].shape[1])
        module = family.part(tower, "fp32").module.to(where := device())
        arrays = {
            out.name: open_memmap(
                folder / f"{out.name}.npy", "w+", np.float16, (1 + len(texts), *signature.shape(out, {"batch": 1})[2:])
            )
            for out in signature.outputs
        }
        everything = ["", *texts]
        for start in range(0, len(everything), batch):
            some = everything[start : start + batch]
            rows = torch.from_numpy(family.literal_ids(tower, [""] * (branches - 1) + some))
            empty, ids = rows[: branches - 1], rows[branches - 1 :]
            both = torch.stack([*(row.expand_as(ids) for row in empty), ids], dim=1).to(where)
            weights = [torch.ones(both.shape, device=where)] * (len(signature.inputs) - 1)
            with where:  # some modules make tensors on the way
                states = module(both, *weights)
            for out, value in zip(signature.outputs, states if isinstance(states, tuple) else (states,), strict=True):
                arrays[out.name][start : start + len(some)] = value[:, -1].cpu().numpy()
                if start == 0:
                    arrays[out.name][0] = value[0, 0].cpu().numpy()
        for array in arrays.values():
            array.flush()


@torch.no_grad()
def latents(family: Family, pictures: Sequence[CaptionedImage], size: tuple[int, int], path: Path, batch: int) -> None:
    """Write float16 (pictures, C, H, W): each picture, scaled to cover `size` (height, width) and cut at its centre, encoded."""
    part = family.part(family.image_encoder, "fp32")
    module, ports = part.module.to(where := device()), [port.name for port in part.signature.inputs]
    generator, array = torch.Generator().manual_seed(0), None
    for start in range(0, len(pictures), batch):
        some = [_pixels(picture, size) for picture in pictures[start : start + batch]]
        values = {"image": torch.from_numpy(np.stack(some)).to(where)}
        shape = part.signature.shape(part.signature.outputs[0], _extent(part.signature.extent("typical"), len(some)))
        values["noise"] = torch.randn(shape, generator=generator).to(where)
        with where:
            found = module(*(values[name] for name in ports)).cpu().numpy()
        if array is None:
            array = open_memmap(path, "w+", np.float16, (len(pictures), *found.shape[1:]))
        array[start : start + len(some)] = found
    if array is not None:
        array.flush()


def _extent(extent: dict[str, int], batch: int) -> dict[str, int]:
    return {**extent, "batch": batch}


def _pixels(picture: CaptionedImage, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    try:
        with Image.open(BytesIO(picture.read())) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    except OSError as error:
        raise UnsupportedError(
            f"{picture.name} is not a whole picture: {error}.\n  Take it out of the data, with its caption."
        ) from error
    return np.asarray(fitted, np.float32) / 255
