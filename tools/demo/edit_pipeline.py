"""Puts the demo's editing pipeline together: the demo's own networks, and what training changed of its denoiser.

    python -m tools.demo.edit_pipeline
    t2iexport build .train/demo-edit.yaml

The second builds what the first has written, a folder and a recipe; `tools.demo.score_conditioned` scores the bundle. What
`tools.demo.train_edit` has trained anew is taken by `--change .train/edit/edit.safetensors`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch
from diffusers import StableDiffusionXLInstructPix2PixPipeline, StableDiffusionXLPipeline

from tools.demo.train_edit import adapt, taught

CHANGE = Path("recipes/demo-edit/edit.safetensors")
RECIPE = """\
# The demo model (recipes/demo/README.md), trained here to change a picture as an instruction says: docs/conditioned.md.
model: {source: %s}
sampler:
  scheduler: EulerDiscreteScheduler
  config: {timestep_spacing: trailing}
  steps: [10]
  guidance: {mode: classifier_free, scale: 3.0}
shapes: {height: [64, 64, 64], width: [64, 64, 64], batch: [1, 1, 8]}
targets:
  - onnxruntime
checks:
  prompts:
    - make it red
    - make the background white
"""


def assemble(source: Path, change: Path) -> StableDiffusionXLInstructPix2PixPipeline:
    """The pipeline in float32.

    Args:
        source: The demo's pipeline.
        change: What `tools.demo.train_edit` wrote.

    """
    demo: Any = StableDiffusionXLPipeline.from_pretrained(source, dtype=torch.float32)
    adapt(demo.unet)
    taught(demo.unet, change)
    demo.unet.fuse_lora()
    demo.unet.unload_lora()
    networks = {name: network for name, network in demo.components.items() if network is not None}
    return StableDiffusionXLInstructPix2PixPipeline(
        **networks, force_zeros_for_empty_prompt=False, add_watermarker=False, is_cosxl_edit=False
    )


@click.command()
@click.option("--source", type=click.Path(path_type=Path, exists=True), default=Path("recipes/demo"), show_default=True)
@click.option("--change", type=click.Path(path_type=Path, exists=True), default=CHANGE, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path(".train/demo-edit"), show_default=True)
def main(source: Path, change: Path, output: Path) -> None:
    """Writes the editing pipeline's folder, and a recipe beside it."""
    assemble(source, change).save_pretrained(output)
    recipe = output.with_name(f"{output.name}.yaml")
    recipe.write_text(RECIPE % output.name, encoding="utf-8")
    click.echo(f"{output}, {recipe}")


if __name__ == "__main__":
    main()
