"""What was learned beside the demo's own weights is an editing pipeline."""

from pathlib import Path

import torch
from click.testing import CliRunner
from diffusers import StableDiffusionXLInstructPix2PixPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file

from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from tools.demo.edit_pipeline import assemble, main
from tools.demo.train_edit import adapt, learned

DEMO = Path("recipes/demo")


def test_the_change_is_in_the_weights_and_nothing_of_the_training_s_layers_is_left(tmp_path):
    unet = StableDiffusionXLPipeline.from_pretrained(DEMO, dtype=torch.float32).unet
    adapt(unet)
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if value.requires_grad:
                value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
    save_file(learned(unet), tmp_path / "edit.safetensors")
    pipeline = assemble(DEMO, tmp_path / "edit.safetensors")
    assert type(pipeline) is StableDiffusionXLInstructPix2PixPipeline
    assert not [name for name in pipeline.unet.state_dict() if "lora" in name or "base_layer" in name]
    assert pipeline.unet.config["in_channels"] == 8
    unet.fuse_lora()
    made = pipeline.unet.state_dict()
    for name, value in unet.state_dict().items():
        if "lora" not in name:
            # What is written is float16, and a change is a sum of RANK products of it.
            torch.testing.assert_close(made[name.replace(".base_layer", "")], value, rtol=1e-3, atol=1e-3)
    assert (tmp_path / "edit.safetensors").stat().st_size < 5e6


def test_the_weights_here_are_a_pipeline_and_a_recipe_beside_it(tmp_path):
    done = CliRunner().invoke(main, ["--output", str(tmp_path / "demo-edit")])
    assert done.exit_code == 0, done.output
    recipe = Recipe.load(tmp_path / "demo-edit.yaml")
    plan = Plan(recipe)
    assert plan.family.inputs.keys() == {"image"}
    assert [scale.name for scale in plan.family.guidance.scales] == ["guidance_scale", "image_guidance_scale"]
