"""Every micro model by diffusers' name of its pipeline."""

from tools.coverage import conditioned, controlnets, lumina, pipelines, pixels, processors, readers, stages, unets, zimage

_ALL = (pipelines, unets, readers, conditioned, controlnets, pixels, processors, zimage, lumina, stages)
MADE = {name: make for each in _ALL for name, make in each.MADE.items()}
