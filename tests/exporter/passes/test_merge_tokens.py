"""A UNet with merged keys goes to a checked bundle, which draws what diffusers draws with that UNet."""

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

from engines.pipeline import Pipeline
from exporter.build import build
from exporter.families.sdxl import Sdxl
from exporter.passes.merge_tokens import MergeTokens
from exporter.passes.regional_attention import RegionalAttention
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import silent
from tests.exporter import equality

RECIPE = """
model: {source: SOURCE}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 2.5}}
shapes: {height: [32, 48, 64], width: [32, 32, 64], batch: [1, 1, 2]}
components: {unet: {passes: [PASS]}}
targets: [onnxruntime]
"""


def test_the_weights_stay_and_a_note_counts_the_layers(tiny_sdxl):
    before = equality.family(Sdxl, tiny_sdxl).part("unet", "fp32").network.state_dict()
    part = MergeTokens(side=2)(equality.family(Sdxl, tiny_sdxl).part("unet", "fp32"))
    after = part.network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    layers = [name for name, _ in part.network.named_modules() if name.endswith("attn1")]
    (note,) = part.notes
    assert note.startswith("unet: merge_tokens: squares of 2 x 2 as keys in ")
    assert note.endswith(f" of {len(layers)} layers of self-attention")
    assert 0 < int(note.split(" keys in ")[1].split()[0]) < len(layers)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("step", "made"),
    [
        ("merge_tokens: {side: 2, levels: 2}", MergeTokens(side=2, levels=2)),
        ("regional_attention: {regions: 2, side: 2}", RegionalAttention(regions=2, side=2)),
    ],
    ids=["merge", "regions"],
)
def test_the_bundle_draws_what_diffusers_draws_with_it(tiny_sd, tmp_path, step, made):
    text = RECIPE.replace("SOURCE", str(tiny_sd)).replace("PASS", step)
    bundle, verdicts = build(Recipe.parse(text, "grouped"), tmp_path / "bundle", Store(tmp_path / "store"), silent)
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    source = StableDiffusionPipeline.from_pretrained(tiny_sd)
    source.scheduler = EulerDiscreteScheduler.from_config(source.scheduler.config)
    source.set_progress_bar_config(disable=True)
    plain = source.unet

    def drawn(unet, size):
        source.unet, asked = unet, {"num_inference_steps": 2, "guidance_scale": 2.5, "output_type": "np"}
        generator = torch.Generator().manual_seed(7)
        return source("a red star", height=size[0], width=size[1], generator=generator, **asked).images[0]

    from exporter.models.grouped_attention import GroupedAttentionUNet

    other = GroupedAttentionUNet.from_config(made.config(plain.config)).eval()
    other.load_state_dict(plain.state_dict())
    with Pipeline.open(bundle.folder) as pipeline:
        for size in ((48, 32), (32, 64)):
            (own,) = pipeline.generate("a red star", seed=7, generator="torch-cpu", height=size[0], width=size[1])
            assert np.abs(np.asarray(own) / 255 - drawn(other, size)).max() <= 1.5 / 255
            assert np.abs(np.asarray(own) / 255 - drawn(plain, size)).max() > 3 / 255
