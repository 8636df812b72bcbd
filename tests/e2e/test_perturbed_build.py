"""Perturbed attention as a branch of its own: built, checked against diffusers' pipeline, and left out where it is off."""

import numpy as np
import pytest
from click.testing import CliRunner

from engines.__main__ import generate
from engines.pipeline import Pipeline
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import RECIPE, silent

pytestmark = [pytest.mark.timeout(2400), pytest.mark.long]
PAG = (
    RECIPE.replace("5.0}", "5.0, interval: [0.0, 0.7], pag: {scale: 3.0, layers: [mid, up_blocks]}}")
    .replace("{vae_encoder: {}}", "{vae_encoder: {}, unet: {lora: {slots: 1, max_rank: 8}}}")
    .replace("[onnxruntime, tensorrt_rtx]", "[onnxruntime]")
)


@pytest.fixture(scope="module")
def perturbed(tiny_sdxl, tmp_path_factory):
    """A bundle of an SDXL model whose first two of four steps have three branches, and that takes LoRAs."""
    folder = tmp_path_factory.mktemp("pag")
    return build(Recipe.parse(PAG % tiny_sdxl, "pag"), folder / "pag", Store(folder / "store"), silent)


def test_it_is_diffusers_pipeline_from_noise_from_pictures_and_with_loras(perturbed):
    _, verdicts = perturbed
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    images = [verdict for verdict in verdicts if verdict.part == "end to end" and verdict.stage == "image"]
    assert images
    assert min(verdict.values["psnr"] for verdict in images) > 100
    assert any(verdict.stage == "fused → lora" for verdict in verdicts)


def test_only_the_branches_that_count_are_computed(perturbed, tmp_path):
    bundle, _ = perturbed
    calls: list[int] = []

    def counting(part, _backend, network):
        def run(inputs):
            if part == "unet":
                calls.append(inputs["prompt_embeds"].shape[1])
            return network(inputs)

        return run

    with Pipeline.open(bundle.folder, wrap=counting) as pipeline:
        drawn = {}
        for scales, counts in {
            (5.0, 3.0): [3, 3, 1, 1],
            (5.0, 0.0): [2, 2, 1, 1],
            (1.0, 3.0): [2, 2, 1, 1],
            (1.0, 0.0): [1] * 4,
        }.items():
            calls.clear()
            drawn[scales] = np.asarray(pipeline.generate("a red circle", guidance_scale=scales[0], pag_scale=scales[1])[0])
            assert calls == counts
        pair = pipeline.generate("a red circle", seed=[0, 0], images_per_prompt=2, pag_scale=[3.0, 0.0])
        assert [image.info["input_pag_scale"] for image in pair] == ["3.0", "0.0"]
    assert not np.array_equal(drawn[5.0, 3.0], drawn[1.0, 0.0])
    for image, scale in zip(pair, (3.0, 0.0), strict=True):
        assert np.abs(np.asarray(image).astype(int) - drawn[5.0, scale]).max() <= 1
    path = tmp_path / "off.png"
    done = CliRunner().invoke(generate, [str(bundle.folder), "a red circle", "--pag-scale", "0", "-o", str(path)])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(generate, [str(bundle.folder), "--from", str(path), "-o", str(tmp_path / "again.png")])
    assert again.exit_code == 0, again.output
    assert path.read_bytes() == (tmp_path / "again.png").read_bytes()
