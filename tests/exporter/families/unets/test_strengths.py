"""How pipelines count the steps that a strength takes."""

import pytest

from exporter.families.unets.strengths import partial_step
from exporter.recipe.sampling import SamplerOptions


@pytest.mark.parametrize(
    ("kind", "scheduler", "changes", "way"),
    [
        ("LatentConsistencyModelPipeline", "LCMScheduler", {}, "spread"),
        ("LatentConsistencyModelImg2ImgPipeline", "DDIMScheduler", {"scheduler": "TCDScheduler"}, "spread"),
        ("LatentConsistencyModelPipeline", "LCMScheduler", {"scheduler": "DDIMScheduler"}, "dropped"),
        ("LatentConsistencyModelPipeline", "LCMScheduler", {"timesteps": [999, 499]}, "dropped"),
        ("StableDiffusionPipeline", "LCMScheduler", {}, "dropped"),  # with an LCM LoRA, diffusers' img2img leaves steps out
    ],
)
def test_lcm_s_own_pipeline_spreads_its_steps_over_the_strength(kind, scheduler, changes, way):
    configs = {"model_index": {"_class_name": kind}, "scheduler": {"_class_name": scheduler}}
    assert partial_step(configs, SamplerOptions(steps=[2], guidance={"mode": "none"}, **changes)) == way
