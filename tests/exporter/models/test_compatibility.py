"""Another model's network is held to what the source's other parts expect of it, field by field."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter.models.checkpoint import Checkpoint
from exporter.models.compatibility import NetworkSource, borrow, teacher
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions


@pytest.fixture(scope="module")
def source() -> Checkpoint:
    """Stable Diffusion 1.5's configs; no weight is needed."""
    return resolve(ModelOptions(source="sd-v1-5", weights="random"), Path())


def fresh(source, part, **fields):
    """Borrow a network with random weights whose config is the source's with these changes."""
    name = "vae" if part.startswith("vae") else part
    config = {"_class_name": source.configs["model_index"][name][1], **source.configs[name], **fields}
    return borrow(NetworkSource(weights="random", seed=5, fields=config), part, source, Path(), "swap")


def test_a_network_that_could_stand_there_does(source):
    found = fresh(source, "unet", layers_per_block=1)
    assert found.configs["unet"]["layers_per_block"] == 1
    assert found.configs["vae"] == source.configs["vae"]
    assert (found.seed, found.provenance["weights"], found.provenance["seed"]) == (5, "random", "5")
    assert dict(found.files) == {"unet": ()}


@pytest.mark.parametrize(
    ("part", "fields", "told"),
    [
        ("unet", {"in_channels": 9}, "another latent space than the source: its in_channels is 9, the source's 4"),
        (
            "unet",
            {"cross_attention_dim": 1024},
            "another text width .*its cross_attention_dim is 1024, the source's 768",
        ),
        ("unet", {"addition_embed_type": "text_time"}, "another text width .*'text_time', the source's None"),
        ("unet", {"time_cond_proj_dim": 256}, "another kind of guidance"),
        ("unet", {"down_block_types": ["DownBlock2D"] * 5}, "another depth .*it has 5 stages, the source 4"),
        ("unet", {"_class_name": "AutoencoderKL"}, "another class .*only UNet2DConditionModel can stand there"),
        ("vae_decoder", {"latent_channels": 16}, "another latent space"),
        ("vae_decoder", {"scaling_factor": 0.13}, r"its scaling_factor is 0\.13, the source's 0\.18215"),
        ("vae_decoder", {"out_channels": 4}, "another kind of picture"),
        ("vae_decoder", {"block_out_channels": [8, 8, 8]}, "one cell of a latent is 4 px wide, of the source's 8"),
        ("vae_encoder", {"_class_name": "AutoencoderTiny"}, "another class .*only AutoencoderKL can stand there"),
        ("text_encoder", {"vocab_size": 1000}, "another vocabulary .*1000, the source's 49408"),
        ("text_encoder", {"hidden_size": 1024}, "another text width"),
    ],
)
def test_what_the_other_parts_could_not_work_with(source, part, fields, told):
    with pytest.raises(UnsupportedError, match=f"swap of {part}: it has .*{told}"):
        fresh(source, part, **fields)


def test_a_width_of_every_stage_is_one_width(source):
    assert fresh(source, "unet", cross_attention_dim=[768] * 4)
    with pytest.raises(UnsupportedError, match="another text width"):
        fresh(source, "unet", cross_attention_dim=[768, 768, 768, 1024])


def folder(root, source, prediction="epsilon", **fields):
    """A pipeline's folder with the source's UNet, its scheduler, and one file that could hold weights."""
    (root / "unet").mkdir(parents=True)
    (root / "scheduler").mkdir()
    (root / "model_index.json").write_text("{}")
    config = {"_class_name": "UNet2DConditionModel", **source.configs["unet"]} | fields
    (root / "unet" / "config.json").write_text(json.dumps(config))
    (root / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": prediction}))
    return root


def test_a_folder_is_looked_for_beside_the_recipe_first(source, tmp_path, monkeypatch):
    folder(tmp_path / "beside" / "other", source, layers_per_block=1)
    folder(tmp_path / "cwd" / "other", source, layers_per_block=3)
    monkeypatch.chdir(tmp_path / "cwd")
    step = NetworkSource(source="other")
    found = borrow(step, "unet", source, tmp_path / "beside", "swap")
    assert found.configs["unet"]["layers_per_block"] == 1
    assert found.files["unet"] == (tmp_path / "beside" / "other" / "unet" / "diffusion_pytorch_model.safetensors",)
    assert (dict(found.provenance), found.seed) == ({"source": "other"}, None)
    assert borrow(step, "unet", source, tmp_path, "swap").configs["unet"]["layers_per_block"] == 3


def test_a_pipeline_s_scheduler_says_what_its_unet_predicts(source, tmp_path):
    folder(tmp_path / "other", source, "v_prediction")
    told = "another prediction type .*its pipeline's scheduler says 'v_prediction', the source's 'epsilon'"
    with pytest.raises(UnsupportedError, match=told):
        borrow(NetworkSource(source="other"), "unet", source, tmp_path, "swap")


def test_a_name_that_is_nothing_and_a_folder_without_a_network(source, tmp_path):
    for name, told in (
        ("no such", r"unet\.swap\.source: 'no such' is neither a file or folder .*"),
        ("sd-v1-5", "'sd-v1-5' is an architecture, which has no weights of its own; set weights: random"),
        ("a/b.safetensors", "is neither a"),
    ):
        with pytest.raises(RecipeError, match=told):
            borrow(NetworkSource(source=name), "unet", source, tmp_path, "unet.swap")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnsupportedError, match=r"has no config\.json, so there is no network"):
        borrow(NetworkSource(source="empty"), "unet", source, tmp_path, "unet.swap")


def test_a_teacher_is_the_source_unless_another_is_named(source, tmp_path, monkeypatch):
    assert teacher(None, source, tmp_path, "distill.teacher") is source
    changes = {
        "another latent space: vae.scaling_factor is 1, the student's 0.18215": ("vae", {"scaling_factor": 1}),
        "another text width: unet.cross_attention_dim is 1024, the student's 768": ("unet", {"cross_attention_dim": 1024}),
        "another prediction type: scheduler.prediction_type is 'sample'": ("scheduler", {"prediction_type": "sample"}),
    }
    scaled = replace(source, configs={**source.configs, "vae": {**source.configs["vae"], "scaling_factor": 0.18215}})
    monkeypatch.setattr("exporter.models.compatibility.find", lambda *_: other)
    other = replace(scaled, configs={**scaled.configs, "unet": {**source.configs["unet"], "layers_per_block": 1}})
    assert teacher("other", scaled, tmp_path, "x") is other
    for told, (component, fields) in changes.items():
        other = replace(scaled, configs={**scaled.configs, component: {**scaled.configs[component], **fields}})
        with pytest.raises(UnsupportedError, match=f"distill.teacher: other has {told}"):
            teacher("other", scaled, tmp_path, "distill.teacher")
