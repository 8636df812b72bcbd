"""How many steps a strength takes of pipelines of latent diffusion that start from a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engines.manifest import PartialStep

if TYPE_CHECKING:
    from exporter.recipe.schema import SamplerOptions

#: The pipeline that tells its scheduler the strength, and the schedulers that take one; others fail with it.
_PIPELINE, _SCHEDULERS = "LatentConsistencyModel", ("LCMScheduler", "TCDScheduler")


def partial_step(configs: Mapping[str, Mapping[str, Any]], sampler: SamplerOptions) -> PartialStep:
    """What becomes of the step in which a strength ends: dropped; or all steps are spread over the strength, as LCM's are.

    Own times are the recipe's, and none of them is spread.
    """
    name = sampler.scheduler or configs["scheduler"].get("_class_name")
    own = str(configs["model_index"].get("_class_name")).startswith(_PIPELINE)
    return "spread" if own and name in _SCHEDULERS and not sampler.timesteps else "dropped"
