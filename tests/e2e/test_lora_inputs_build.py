"""A bundle that takes LoRAs for each picture: what it draws is what a bundle with the LoRAs fused draws."""

import json

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.errors import RecipeError, UnsupportedError
from engines.pipeline import Pipeline
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from exporter.stages.store import Store
from tests.e2e.conftest import silent
from tests.exporter import loras

pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]
LORA = "lora: {max_rank: 8, slots: 2}"
PROMPT = "a red circle"


def components(text):
    return text.replace(
        "components: {", f"components: {{unet: {{{LORA}}}, text_encoder: {{{LORA}}}, text_encoder_2: {{{LORA}}}, "
    )


@pytest.fixture(scope="module")
def adapted(built, processors, tmp_path_factory):
    """The processors' bundle, with inputs for LoRAs."""
    recipe = processors.with_name("adapted.yaml")
    recipe.write_text(components(processors.read_text()))
    bundle, verdicts = build(Recipe.load(recipe), tmp_path_factory.mktemp("adapted") / "adapted", Store(built.store), silent)
    return bundle, verdicts


@pytest.fixture(scope="module")
def files(tiny_sdxl, tmp_path_factory):
    """Two LoRAs for all three networks, one in kohya's format, and one of those for the UNet alone."""
    from diffusers import StableDiffusionXLPipeline

    pipeline, folder = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl), tmp_path_factory.mktemp("loras")
    kinds = {"unet": loras.UNET, "text_encoder": loras.TEXT, "text_encoder_2": loras.TEXT}
    made = [{name: loras.layers(getattr(pipeline, name), ends, seed=seed) for name, ends in kinds.items()} for seed in (1, 2)]
    return loras.save_kohya(folder / "style.safetensors", made[0], step=1.0), loras.save(
        folder / "character.safetensors", made[1]
    )


def test_it_is_checked_with_loras_and_lists_its_layers(adapted):
    bundle, verdicts = adapted
    assert not [verdict for verdict in verdicts if not verdict.passed]
    seen = {(verdict.part, verdict.backend) for verdict in verdicts if verdict.stage == "fused → lora"}
    assert seen == {(part, backend) for part in ("unet", "text_encoder", "text_encoder_2") for backend in (None, "onnxruntime")}
    entry = bundle.manifest.parts["unet"].lora
    assert (entry.limits.slots, entry.limits.max_rank, entry.limits.conv_rank) == (2, 8, 8)
    layers = json.loads((bundle.folder / entry.layers).read_text())["layers"]
    assert {layer["name"] for layer in layers if layer["index"] is None} >= {"conv_in", "conv_out", "time_embedding.linear_1"}
    assert Bundle.open(bundle.folder).manifest.model == bundle.manifest.model


def test_a_picture_is_that_of_the_bundle_with_the_loras_fused(built, processors, adapted, files, tmp_path):
    listed = ", ".join(f"{{source: {file}, scale: {scale}}}" for file, scale in zip(files, (0.7, -0.4), strict=True))
    recipe = tmp_path / "fused.yaml"
    recipe.write_text(processors.read_text().replace("model: {", f"model: {{loras: [{listed}], "))
    fused, _ = build(Recipe.load(recipe), tmp_path / "fused", Store(built.store), silent)
    with Pipeline.open(fused.folder) as pipeline:
        wanted = np.asarray(pipeline.generate(PROMPT, seed=5)[0], np.int16)
    with Pipeline.open(adapted[0].folder) as pipeline:
        plain, made, again = (
            np.asarray(pipeline.generate(PROMPT, seed=5, loras=wish)[0], np.int16)
            for wish in ([], [(files[0], 0.7), f"{files[1]}:-0.4"], [])
        )
        (other,) = pipeline.generate(PROMPT, seed=5, loras=[files[1]])
    assert np.abs(plain - wanted).mean() > 1
    assert np.abs(made - wanted).max() <= 1
    assert np.array_equal(plain, again)
    assert not np.array_equal(np.asarray(other), made)


def test_what_cannot_take_loras_is_refused_before_time_is_spent(processors):
    text = processors.read_text()
    for more, told in (
        (text.replace("vae_encoder: {}", f"vae_encoder: {{{LORA}}}"), "components.vae_encoder.lora: LoRAs change text encoders"),
        (
            components(text).replace("[16, 32, 48]", "[32, 32, 32]").replace("[1, 1, 2]", "[1, 1, 1]") + "pipeline: fused\n",
            "no inputs for LoRAs",
        ),
        (components(text) + "prompts: {weights: compel}\n", "components.text_encoder.lora: with prompts.weights: compel"),
    ):
        with pytest.raises(RecipeError, match=told):
            Plan(Recipe.parse(more.replace("vae_encoder: {}", "") if "fused" in more else more, "x")).refuse()
    with pytest.raises(RecipeError, match="multiple of 8"):
        Recipe.parse(components(text).replace("max_rank: 8", "max_rank: 12"), "x")


def test_another_base_is_refused_by_the_real_bundle(adapted, files, tmp_path):
    from safetensors.torch import load_file, save_file

    wrong = {
        name: value.repeat(1, 2) if name.endswith("lora_A.weight") and value.ndim == 2 else value
        for name, value in load_file(files[1]).items()
    }
    save_file(wrong, tmp_path / "wrong.safetensors")
    with Pipeline.open(adapted[0].folder) as pipeline, pytest.raises(UnsupportedError, match="is for another model"):
        pipeline.generate(PROMPT, loras=[tmp_path / "wrong.safetensors"])
