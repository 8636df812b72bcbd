"""What is looked at in a pipeline's folder."""

import pytest

from exporter.models import component_files, weights


@pytest.mark.parametrize(
    ("name", "files", "config"),
    [
        ("unet", (), "config.json"),
        ("tokenizer_2", (), "tokenizer_config.json"),
        ("scheduler", (), "scheduler_config.json"),
        ("low_res_scheduler", (), "scheduler_config.json"),
        ("image_encoder", ("config.json", "preprocessor_config.json"), "config.json"),
        ("feature_extractor", ("preprocessor_config.json",), "preprocessor_config.json"),
        ("processor", ("tokenizer_config.json", "preprocessor_config.json"), "tokenizer_config.json"),
    ],
)
def test_a_component_s_config_is_in_the_file_of_its_kind(tmp_path, name, files, config):
    for file in files:
        (tmp_path / file).touch()
    assert component_files.of(tmp_path, name) == config


def test_a_network_that_diffusers_keeps_beside_a_pipeline_is_diffusers():
    index = {
        "image_normalizer": ["stable_diffusion", "StableUnCLIPImageNormalizer"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "mine": ["own", "StableUnCLIPImageNormalizer"],
        "requires_safety_checker": False,
    }
    found = component_files.of_diffusers(index)
    assert found == {**index, "image_normalizer": ["diffusers", "StableUnCLIPImageNormalizer"]}
    for name, module in component_files.BESIDE.items():
        assert weights.named("diffusers", name).__module__.startswith(f"diffusers.pipelines.{module}")


def test_what_every_pipeline_has_is_read_and_of_the_rest_what_is_there(tmp_path):
    (tmp_path / "processor").mkdir()
    (tmp_path / "processor" / "tokenizer_config.json").touch()
    index = {
        "unet": None,
        "tokenizer": None,
        "processor": ["transformers", "Qwen3VLProcessor"],
        "mine": ["own", "Thing"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": False,
    }
    read = [name for name in index if component_files.is_read(index, name, tmp_path, ("transformers",))]
    assert read == ["unet", "tokenizer", "processor"]
