"""Every micro model by diffusers' name of its pipeline."""

from tools.coverage import conditioned, controlnets, pipelines, readers, unets, zimage

MADE = {**pipelines.MADE, **unets.MADE, **readers.MADE, **conditioned.MADE, **controlnets.MADE, **zimage.MADE}
