"""Every micro model by diffusers' name of its pipeline, or by ours where it stands in none of diffusers' lists."""

from collections.abc import Callable, Mapping

from diffusers import DiffusionPipeline

from tools.coverage import (
    bria,
    conditioned,
    controlnets,
    dreamlite,
    joyimage,
    longcat,
    lumina,
    newcomers,
    omnigen,
    pipelines,
    pixels,
    processors,
    prompted,
    readers,
    stages,
    unets,
    unlisted,
    untried,
    zimage,
)

_ALL = (pipelines, unets, readers, conditioned, controlnets, pixels, processors, zimage, lumina, stages)
MADE = {name: make for each in _ALL for name, make in each.MADE.items()}
#: Those of no list that draw from text, as those of the lists do.
FROM_TEXT: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "stable-diffusion-controlnets": conditioned.stable_diffusion_controlnets,
    "prx-pixel": pixels.prx_pixel,
    "ernie-image": readers.ernie_image,
    **dreamlite.MADE,
    **longcat.MADE,
    **omnigen.MADE,
    **newcomers.MADE,
    **bria.MADE,
    **joyimage.MADE,
    **untried.MADE,
}
#: Those of no list, in the order of their rows.
BESIDE: Mapping[str, Callable[[], DiffusionPipeline]] = {**unlisted.MADE, **prompted.MADE, **FROM_TEXT}
