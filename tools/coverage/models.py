"""Every micro model by diffusers' name of its pipeline."""

from tools.coverage import pipelines, readers, unets

MADE = {**pipelines.MADE, **unets.MADE, **readers.MADE}
