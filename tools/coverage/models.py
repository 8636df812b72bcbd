"""Every micro model by diffusers' name of its pipeline."""

from tools.coverage import conditioned, controlnets, pipelines, pixels, readers, unets

MADE = {**pipelines.MADE, **unets.MADE, **readers.MADE, **conditioned.MADE, **controlnets.MADE, **pixels.MADE}
