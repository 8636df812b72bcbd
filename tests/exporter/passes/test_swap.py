"""Another model's network stands where the source's stood: found, compared, counted, and played as diffusers plays it."""

import json
import re
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engines.errors import RecipeError, UnsupportedError
from exporter.passes.swap import Swap
from exporter.recipe.schema import Recipe
from exporter.reference.recording import load_run
from exporter.report import describe
from exporter.stages.plan import Plan
from exporter.stages.stage import Results
from exporter.stages.store import Store
from tests.exporter import loras, models

RECIPE = """
model: {source: %s}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
components:
  %s: {passes: [swap: %s]}
checks: {prompts: [a red circle]}
"""
FRESH = {
    "_class_name": "AutoencoderTiny",
    "encoder_block_out_channels": [8, 8, 8],
    "decoder_block_out_channels": [8, 8, 8],
    "num_encoder_blocks": [1, 1, 1],
    "num_decoder_blocks": [1, 1, 1],
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    models.tiny_vae().save_pretrained(folder)
    return folder


def saved(network, folder, **changes):
    network.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def plan(model, part, overrides=(), **options):
    return Plan(Recipe.parse(RECIPE % (model, part, json.dumps(options)), "swapped", overrides=overrides))


def refused(error, model, part, **options):
    with pytest.raises(error) as caught:
        plan(model, part, **options).refuse()
    return str(caught.value)


# A tiny decoder.


def test_a_tiny_decoder_draws_what_diffusers_draws_with_it(tiny_sdxl, tiny, tmp_path):
    halves = ["targets=[tensorrt_rtx]", "components.vae_decoder.precision=auto"]
    chosen = plan(tiny_sdxl, "vae_decoder", halves, source=str(tiny))
    results = Results(Store(tmp_path))
    source, run = (load_run(results[which].runs[0]) for which in (chosen.recorded, chosen.reference))
    latent = torch.from_numpy(run.latent)
    # TAESD takes latents as the UNet makes them, and diffusers brings its picture to [-1, 1].
    with torch.no_grad():
        wanted = models.tiny_vae().decode(latent).sample.div(2).add(0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.allclose(run.image, wanted, atol=1e-5)
    assert np.array_equal(source.latent, run.latent)
    assert not np.allclose(source.image, run.image, atol=1e-2)
    (case,) = results[chosen.parts["vae_decoder"].outputs].cases[:1]
    assert np.mean((case.passes["image"] - wanted) ** 2) < 10**-4.5, "45 dB in half precision"
    ranges = results[chosen.reference].ranges
    assert 0 < ranges["vae_decoder"] < 100
    precision, why = chosen.parts["vae_decoder"].precision.decide(results)
    assert (precision, f"{ranges['vae_decoder']:.4g}" in why) == ("fp16", True), (
        "half precision by what this decoder was seen to do"
    )


def test_what_the_decoder_is_made_of_is_kept(tiny_sdxl, tiny, tmp_path):
    made = Results(Store(tmp_path))[plan(tiny_sdxl, "vae_decoder", source=str(tiny)).networks.last["vae_decoder"]]
    found, own = diffusers.AutoencoderTiny.from_pretrained(made.folder).state_dict(), models.tiny_vae().state_dict()
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)
    assert str(tiny) in made.notes[0]


def test_the_encoder_stays_the_source_s(tiny_sdxl, tiny, tmp_path):
    overrides = ["components.vae_encoder={}"]
    chosen = plan(tiny_sdxl, "vae_decoder", overrides, source=str(tiny))
    results = Results(Store(tmp_path))
    runs = [results[which].runs for which in (chosen.recorded, chosen.reference)]
    source, passed = (next(run for run in map(load_run, files) if run.source is not None) for files in runs)
    encoder = diffusers.AutoencoderKL.from_pretrained(tiny_sdxl, subfolder="vae")
    for run in (source, passed):
        with torch.no_grad():
            found = encoder.encode(torch.from_numpy(run.source.pixels[None] / np.float32(255) * 2 - 1).permute(0, 3, 1, 2))
        latent = found.latent_dist.mean + found.latent_dist.std * torch.from_numpy(run.draws[0])
        assert np.allclose(run.source.latent, latent.numpy() * encoder.config.scaling_factor, atol=1e-5)


def test_a_fresh_one_of_a_size(tiny_sdxl, tmp_path):
    options = {"weights": "random", "fields": FRESH}
    one, other = (plan(tiny_sdxl, "vae_decoder", seed=seed, **options) for seed in (0, 1))
    folders = [Results(Store(tmp_path))[each.networks.last["vae_decoder"]].folder for each in (one, other)]
    first, second = (diffusers.AutoencoderTiny.from_pretrained(folder).state_dict() for folder in folders)
    assert first.keys() == models.tiny_vae().state_dict().keys()
    assert not torch.equal(first["decoder.layers.0.weight"], second["decoder.layers.0.weight"])
    assert one.passes.summaries("vae_decoder") == ("swap: AutoencoderTiny with random weights",)


def test_an_architecture_s_decoder_with_fields_changed(tiny_sdxl):
    options = {"source": "sdxs-512-0.9", "weights": "random", "fields": FRESH}
    family = plan(tiny_sdxl, "vae_decoder", **options).passes.expected_family
    assert family.configs["vae_decoder"]["num_decoder_blocks"] == [1, 1, 1]


def test_inspect_counts_it(tiny_sdxl, tiny, tmp_path):
    recipe = Recipe.parse(RECIPE % (tiny_sdxl, "vae_decoder", json.dumps({"source": str(tiny)})), "swapped")
    row = next(row for row in describe.recipe(recipe, Store(tmp_path))["parts"] if row["part"] == "vae_decoder")
    assert int(row["parameters"].replace(",", "")) == sum(value.numel() for value in models.tiny_vae().decoder.parameters())
    assert row["passes"] == f"swap: {tiny}"


def test_precision_follows_the_decoder_that_is_there(tiny_sdxl, tiny, tmp_path):
    overrides = ["checks.skip=no time", "targets=[tensorrt_rtx]", "components.vae_decoder.precision=auto"]
    for passes, precision in (([], "fp16"), (["components.vae_decoder.passes=[]"], "fp32")):
        chosen = plan(tiny_sdxl, "vae_decoder", [*overrides, *passes], source=str(tiny))
        assert chosen.parts["vae_decoder"].precision.of(Results(Store(tmp_path))) == precision


# A UNet.


def test_a_unet_of_half_precision_and_of_another_depth(tiny_sdxl, tmp_path):
    other = models.unet_xl(mid_block_type=None, up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"])
    other.half().save_pretrained(tmp_path / "unet")
    chosen = plan(tiny_sdxl, "unet", source=str(tmp_path / "unet"))
    results = Results(Store(tmp_path / "store"))
    assert json.loads((results[chosen.networks.last["unet"]].folder / "config.json").read_text())["mid_block_type"] is None
    source, run = (load_run(results[which].runs[0]) for which in (chosen.recorded, chosen.reference))
    assert not np.allclose(source.latent, run.latent, atol=1e-2)
    case = results[chosen.parts["unet"].outputs].cases[0]
    assert np.allclose(case.passes["model_output"], run.model_outputs[0], atol=1e-4)
    assert "not distilled" not in chosen.passes.summaries("unet")


def test_a_pipeline_s_unet(tiny_sdxl, tmp_path):
    models.save_sdxl(tmp_path / "other", network=models.unet_xl(layers_per_block=2))
    chosen = plan(tiny_sdxl, "unet", source=str(tmp_path / "other"))
    chosen.refuse()
    assert chosen.passes.expected_family.configs["unet"]["layers_per_block"] == 2


def test_keys_follow_the_other_network_s_weights(tiny_sdxl, tmp_path):
    folder, keys = tmp_path / "unet", []
    for shift in (0.0, 1.0):
        network = models.unet_xl()
        network.conv_out.bias.data += shift
        network.save_pretrained(folder)
        keys.append({f"{s.verb} {s.subject}": s.key.digest for s in plan(tiny_sdxl, "unet", source=str(folder)).stages})
    changed = {name for name in keys[0] if keys[0][name] != keys[1][name]}
    assert changed == {"pass unet, swap", "record passes", "measure unet", "export unet, opset 20", "engine unet, onnxruntime"}


def test_a_lora_changes_the_network_that_stands_there(tiny_sdxl, tmp_path):
    models.unet_xl(mid_block_type=None).save_pretrained(tmp_path / "unet")
    network = models.unet_xl(mid_block_type=None)
    loras.save(tmp_path / "lora.safetensors", {"unet": loras.layers(network, ("to_q",))})
    overrides = [f"model.loras=[{{source: '{tmp_path / 'lora.safetensors'}'}}]"]
    chosen = plan(tiny_sdxl, "unet", overrides, source=str(tmp_path / "unet"))
    results = Results(Store(tmp_path / "store"))
    folder = results[chosen.networks.last["unet"]].folder
    found, own = diffusers.UNet2DConditionModel.from_pretrained(folder).state_dict(), network.state_dict()
    changed = {name for name in own if not torch.equal(own[name], found[name])}
    assert changed == {name for name in own if name.endswith("to_q.weight")}


# From the hub.


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one repository, whose files lie in a folder; it notes which of them were asked for."""
    import huggingface_hub

    served = SimpleNamespace(folder=tmp_path / "served", patterns=[])

    class HfApi:
        def model_info(self, _repo, revision=None):
            assert revision == "main"
            names = [str(file.relative_to(served.folder)) for file in served.folder.rglob("*") if file.is_file()]
            return SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=name) for name in names])

    def snapshot_download(_repo, *, revision, allow_patterns, **_):
        assert revision == "c0ffee"
        served.patterns.append(sorted(allow_patterns))
        return str(served.folder)

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return served


WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_a_network_alone_from_the_hub(tiny_sdxl, hub, tmp_path):
    models.tiny_vae().save_pretrained(hub.folder)
    chosen = plan(tiny_sdxl, "vae_decoder", source="owner/tiny", revision="main")
    made = Results(Store(tmp_path))[chosen.networks.last["vae_decoder"]]
    assert {tuple(each) for each in hub.patterns} == {("config.json", WEIGHTS)}
    (note,) = made.notes
    assert "owner/tiny, revision c0ffee" in note


def test_a_pipeline_s_network_from_the_hub(tiny_sdxl, hub):
    models.save_sdxl(hub.folder, network=models.unet_xl(layers_per_block=2))
    plan(tiny_sdxl, "unet", source="owner/model", revision="main").refuse()
    assert hub.patterns[0] == ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json", f"unet/{WEIGHTS}"]


def test_inspect_downloads_no_weights(tiny_sdxl, hub, tmp_path):
    models.tiny_vae().save_pretrained(hub.folder)
    text = RECIPE % (tiny_sdxl, "vae_decoder", json.dumps({"source": "owner/tiny", "revision": "main"}))
    found = describe.recipe(Recipe.parse(text, "swapped"), Store(tmp_path))
    assert {tuple(each) for each in hub.patterns} == {("config.json",)}
    assert found["note"].startswith("of owner/tiny the config alone was read")


# What cannot stand there.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latent_channels": 16}, "another latent space.*latent_channels is 16, the source's 4"),
        ({"out_channels": 4}, "another kind of picture"),
        (
            {
                "encoder_block_out_channels": [8] * 4,
                "decoder_block_out_channels": [8] * 4,
                "num_encoder_blocks": [1] * 4,
                "num_decoder_blocks": [1] * 4,
            },
            "one cell of a latent is 8 px wide, of the source's 4",
        ),
        ({"_class_name": "UNet2DConditionModel"}, "another class.*only AutoencoderKL or AutoencoderTiny can stand there"),
    ],
)
def test_a_decoder_that_does_not_fit(tiny_sdxl, changes, said):
    assert re.search(said, refused(UnsupportedError, tiny_sdxl, "vae_decoder", weights="random", fields=FRESH | changes))


def test_a_kl_decoder_of_another_scaling(tiny_sdxl, tmp_path):
    saved(models.vae(), tmp_path / "vae")
    assert "its scaling_factor is 0.18215, the source's 0.13025" in refused(
        UnsupportedError, tiny_sdxl, "vae_decoder", source=str(tmp_path / "vae")
    )


def test_a_tiny_encoder_would_take_no_noise(tiny_sdxl, tiny):
    told = refused(UnsupportedError, tiny_sdxl, "vae_encoder", source=str(tiny))
    assert "only AutoencoderKL can stand there" in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"in_channels": 9}, "another latent space than the source: its in_channels is 9, the source's 4"),
        ({"cross_attention_dim": 16}, "another text width than the source: its cross_attention_dim is 16, the source's 40"),
        ({"addition_embed_type": None}, "another text width"),
        ({"time_cond_proj_dim": 8}, "another kind of guidance"),
        ({"down_block_types": ["DownBlock2D"] * 4}, "another depth than the source: it has 4 stages, the source 3"),
        ({"_class_name": "SD3Transformer2DModel"}, "only UNet2DConditionModel can stand there"),
    ],
)
def test_a_unet_that_does_not_fit(tiny_sdxl, tmp_path, changes, said):
    saved(models.unet_xl(), tmp_path / "unet", **changes)
    assert said in refused(UnsupportedError, tiny_sdxl, "unet", source=str(tmp_path / "unet"))


def test_a_unet_that_predicts_something_else(tiny_sdxl, tmp_path):
    folder = models.save_sdxl(tmp_path / "other")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"}))
    told = refused(UnsupportedError, tiny_sdxl, "unet", source=str(folder))
    assert "another prediction type than the source: its pipeline's scheduler says 'v_prediction', the source's 'epsilon'" in told


def test_a_folder_that_is_not_there_or_empty(tiny_sdxl, tmp_path):
    assert "components.unet.passes.0.swap.source: 'no folder' is neither a file or folder" in refused(
        RecipeError, tiny_sdxl, "unet", source="no folder"
    )
    assert "has no config.json" in refused(UnsupportedError, tiny_sdxl, "unet", source=str(tmp_path))
    assert "which has no weights of its own" in refused(RecipeError, tiny_sdxl, "vae_decoder", source="sdxs-512-0.9")


def test_pickles_and_foreign_weights(tiny_sdxl, tmp_path):
    saved(models.unet_xl(), tmp_path / "unet")
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({"conv_in.weight": torch.zeros(1)}, weights)
    with pytest.raises(UnsupportedError, match="weights and config do not belong together"):
        _ = Results(Store(tmp_path / "store"))[plan(tiny_sdxl, "unet", source=str(tmp_path / "unet")).networks.last["unet"]]
    weights.rename(weights.with_suffix(".bin"))
    assert "as a pickle" in refused(UnsupportedError, tiny_sdxl, "unet", source=str(tmp_path / "unet"))


def test_it_stands_first(tiny_sdxl, tiny):
    steps = json.dumps([{"prune": {"blocks": {"mid_block": None}}}, {"swap": {"source": str(tiny)}}])
    with pytest.raises(RecipeError, match="would undo what prune made; it stands first"):
        plan(tiny_sdxl, "unet", [f"components.unet.passes={steps}"], source=str(tiny))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "nothing says which network"),
        ({"source": "a", "fields": {"x": 1}}, "fields have no effect on pretrained weights"),
        ({"weights": "random", "fields": {"x": 1}}, "nothing says which network"),
    ],
)
def test_options_that_say_nothing(options, said):
    with pytest.raises(ValueError, match=said):
        Swap(**options)
