"""Every micro model by diffusers' name of its pipeline."""

from tools.coverage import conditioned, controlnets, pipelines, pixels, processors, readers, unets, zimage

_ALL = (pipelines, unets, readers, conditioned, controlnets, pixels, processors, zimage)
MADE = {name: make for each in _ALL for name, make in each.MADE.items()}
