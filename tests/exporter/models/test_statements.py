"""What a single file says of itself is read into the configs, named, or refused; a recipe that says otherwise is a problem."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.errors import RecipeError
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from tests.exporter import loras, models, original
from tests.exporter.models.test_single_file import known  # noqa: F401 - a fixture

TEXT = """\
model: {source: %s}
sampler: {%s steps: [4], guidance: {mode: none}%s}
shapes: {height: [32, 32, 64], width: [32, 32, 64]}
"""
MEAN, STD = [-1.6, 0.7, 0.2, -1.1], [8.4, 5.9, 6.5, 5.2]
PLAYGROUND = {"edm_mean": torch.tensor(MEAN).reshape(1, 4, 1, 1), "edm_std": torch.tensor(STD).reshape(1, 4, 1, 1)}
COSXL = {"edm_vpred.sigma_max": torch.tensor(100.0), "edm_vpred.sigma_min": torch.tensor(0.01)}
EULER = "scheduler: EulerDiscreteScheduler,"
V = "prediction_type: v_prediction"


@pytest.fixture(scope="module")
def plain(tiny_sdxl, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(tiny_sdxl / name, folder / name)
    return original.save(tiny_sdxl, folder / "plain.safetensors", openclip=("text_encoder_2",))


@pytest.fixture
def planned(plain, tmp_path, request):
    request.getfixturevalue("known")

    def plan(extra=(), words=None, *, scheduler="", config=""):
        file = plain.parent / f"{tmp_path.name}.safetensors"
        save_file({**load_file(plain), **dict(extra)}, file, words)
        recipe = Recipe.parse(TEXT % (file, scheduler, f", config: {{{config}}}" if config else ""), "x", shown="x.yaml")
        try:
            return Plan(recipe)
        except RecipeError as error:
            raise RecipeError(recipe.located(error.problems)) from error

    return plan


def scheduler(plan):
    return plan.checkpoint.configs["scheduler"]


@pytest.mark.parametrize("start", ["model.diffusion_model.", "unet."])
def test_keys_where_the_unet_s_weights_are_count_too(planned, start):
    plan = planned({f"{start}v_pred": torch.zeros(0)})
    assert scheduler(plan)["prediction_type"] == "v_prediction"
    assert plan.notes == ()
    assert plan.checkpoint.module("unet")


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ("stable-diffusion-xl-v1-base", ""),
        ("stable-diffusion-v1", "made for stable-diffusion-v1, as modelspec.architecture says, and this is another model"),
        ("flux-1-dev", "made for flux-1-dev, as"),
        ("stable-diffusion-xl-v1-refiner", "made for stable-diffusion-xl-v1-refiner, as"),
        ("stable-diffusion-xl-v1-base/inpaint", "calls it stable-diffusion-xl-v1-base/inpaint; its weights are a whole"),
    ],
)
def test_a_file_that_calls_itself_another_model_is_noted(planned, said, note):
    notes = planned(words={"modelspec.architecture": said}).notes
    assert len(notes) == bool(note)
    assert all(note in each for each in notes)


def test_a_plain_file_states_nothing(planned):
    plan = planned()
    assert plan.checkpoint.statements == ()
    assert plan.notes == ()
    assert scheduler(plan).get("prediction_type", "epsilon") == "epsilon"


@pytest.mark.parametrize("shape", [(0,), (), (1,)])
def test_v_prediction_and_zero_snr_by_keys(planned, shape):
    plan = planned({"v_pred": torch.zeros(shape), "ztsnr": torch.zeros(shape, dtype=torch.bfloat16)})
    told = scheduler(plan)
    assert (told["prediction_type"], told["rescale_betas_zero_snr"], told["timestep_spacing"]) == (
        "v_prediction",
        True,
        "trailing",
    )
    assert plan.notes == ()
    assert "prediction_type v_prediction (its key v_pred); rescale" in plan.checkpoint.provenance["says"]
    table = plan.table(4)
    assert table.provenance.config["prediction_type"] == "v_prediction"
    made = plan.family.scheduler()
    assert made.config.rescale_betas_zero_snr
    assert [round(op.t) for op in table.ops if hasattr(op, "t")] == [999, 749, 499, 249]


@pytest.mark.parametrize(
    "words",
    [{"modelspec.prediction_type": "v"}, {"ss_v_parameterization": "True"}, {"modelspec.prediction_type": "v-prediction"}],
)
def test_v_prediction_by_metadata(planned, words):
    assert scheduler(planned(words=words))["prediction_type"] == "v_prediction"


def test_metadata_that_says_what_is_so_anyway(planned):
    plan = planned(words={"modelspec.prediction_type": "epsilon", "modelspec.title": "A", "modelspec.resolution": "1024x1024"})
    assert plan.checkpoint.provenance["modelspec.title"] == "A"
    assert plan.checkpoint.provenance["modelspec.resolution"] == "1024x1024"


def test_playground(planned):
    plan = planned(PLAYGROUND)
    assert scheduler(plan)["_class_name"] == "EDMDPMSolverMultistepScheduler"
    assert type(plan.family.scheduler()).__name__ == "EDMDPMSolverMultistepScheduler"
    vae = plan.checkpoint.configs["vae"]
    assert vae["latents_mean"] == pytest.approx(MEAN)
    assert vae["latents_std"] == pytest.approx(STD)
    assert vae["scaling_factor"] == 0.5
    assert plan.table(4).provenance.scheduler == "EDMDPMSolverMultistepScheduler"


def test_cosxl(planned):
    plan = planned(COSXL)
    made = plan.family.scheduler()
    assert type(made).__name__ == "EDMEulerScheduler"
    assert (made.config.sigma_max, made.config.sigma_data, made.config.prediction_type) == (100.0, 1.0, "v_prediction")
    assert made.config.sigma_min == pytest.approx(0.01)
    euler = planned(
        COSXL, scheduler="scheduler: EulerDiscreteScheduler,", config="timestep_type: continuous, use_exponential_sigmas: true"
    )
    ours, theirs = (
        [op.t for op in each.table(4).ops if hasattr(op, "t")]
        for each in (euler, planned(COSXL, scheduler="scheduler: EDMEulerScheduler,"))
    )
    assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize(
    ("extra", "words", "scheduler", "config", "told"),
    [
        ({"v_pred": torch.zeros(0)}, None, "", "prediction_type: epsilon", "x.yaml:2  sampler.config.prediction_type: 'epsilon'"),
        ({}, {"modelspec.prediction_type": "v"}, "", "prediction_type: epsilon", "modelspec.prediction_type 'v'"),
        ({"ztsnr": torch.zeros(0)}, None, "", "", "x.yaml:2  sampler.config: rescale_betas_zero_snr needs prediction_type"),
        ({"ztsnr": torch.zeros(0), "v_pred": torch.zeros(0)}, None, "", "timestep_spacing: leading", "its key ztsnr"),
        ({"v_pred": torch.zeros(0)}, {"modelspec.prediction_type": "epsilon"}, "", "", "both 'epsilon'"),
        ({}, {"modelspec.prediction_type": "velocity"}, "", "", "what diffusers has no word for"),
        (PLAYGROUND, None, EULER, "", "x.yaml:2  sampler.scheduler: EulerDiscreteScheduler undoes diffusion"),
        (COSXL, None, EULER, "timestep_type: continuous", "plays models of EDM's form only"),
        ({"edm_mean": PLAYGROUND["edm_mean"]}, None, "", "", "x.yaml:1  model.source: its key edm_std holds no numbers"),
        ({**PLAYGROUND, "edm_std": torch.full((1, 4, 1, 1), torch.nan)}, None, "", "", "edm_std holds no numbers"),
        ({**PLAYGROUND, "edm_std": torch.zeros(1, 4, 1, 1)}, None, "", "", "edm_std holds no numbers"),
        ({"edm_vpred.sigma_max": torch.tensor(-80.0)}, None, "", "", "says of sigma_max no number that can be one: its key"),
        ({"edm_vpred.sigma_max": torch.tensor(0.001)}, None, "", "", "says of sigma_max no number that can be one"),  # too small
        ({}, None, "scheduler: EDMEulerScheduler,", "", "x.yaml:2  sampler.scheduler: EDMEulerScheduler undoes EDM"),
    ],
)  # fmt: skip
def test_contradictions(planned, extra, words, scheduler, config, told):
    with pytest.raises(RecipeError) as caught:
        planned(extra, words, scheduler=scheduler, config=config)
    assert any(told in problem for problem in caught.value.problems), caught.value.problems


def test_a_recipe_decides_where_the_file_says_two_things_or_none_that_is_known(planned):
    for extra, words in (
        ({"v_pred": torch.zeros(0)}, {"modelspec.prediction_type": "epsilon"}),
        ({}, {"modelspec.prediction_type": "velocity"}),
    ):
        assert planned(extra, words, config=V).table(4).provenance.config["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(
    ("name", "told"),
    [("new_marker", "new_marker"), ("some.thing.weight", "some.thing.weight"), ("control_model.x", "control_model.x")],
)
def test_an_unknown_key_is_named(planned, name, told):
    (note,) = planned({name: torch.ones(2)}).notes
    assert note.endswith(f"left out, of no network that is built: {told}")


@pytest.mark.parametrize(
    "name", ["model_ema.decay", "betas", "loss.x.weight", "first_stage_model.loss.logvar", "denoiser.sigmas", "global_step"]
)
def test_a_harmless_one_is_not(planned, name):
    assert planned({name: torch.ones(2)}).notes == ()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"modelspec.encoder_layer": "2"}, "clip skip"),
        ({"modelspec.timestep_range": "0,200"}, "0,200"),
        ({"modelspec.noise_process": "flow"}, "'flow'"),
        (
            {"prediction_type": "v_prediction", "x.vpred": "1"},
            "has prediction_type 'v_prediction', x.vpred '1', under a name that",
        ),
        ({"ss_flow_matching": "True", "prediction_type": "epsilon"}, "has ss_flow_matching 'True', under"),
    ],
)
def test_words_that_no_config_holds_are_told(planned, words, told):
    (note,) = planned(words=words).notes
    assert told in note


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"modelspec.prediction_type": "v"}, "prediction_type is 'v_prediction'"),
        ({"ss_zero_terminal_snr": "True"}, "rescale_betas_zero_snr is True"),
        ({"ss_clip_skip": "2"}, "clip skip"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "stable-diffusion-v1, as"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora", "ss_clip_skip": "None"}, ""),
    ],
)  # fmt: skip
def test_a_lora_says_what_it_was_trained_on(tiny_sdxl, tmp_path, words, told):
    file = loras.save(tmp_path / "a.safetensors", {"unet": loras.layers(models.unet_xl(), ("to_q",))}, metadata=words)
    recipe = Recipe.parse(TEXT % (f"{tiny_sdxl}, loras: [{{source: {file}}}]", "", ""), "x")
    notes = Plan(recipe).notes
    assert len(notes) == bool(told)
    assert all(told in note for note in notes)


def test_a_plan_that_reads_a_file_imports_no_torch(plain):
    import subprocess
    import sys

    program = (
        "import sys, pathlib; from exporter.models import statements;"
        f"statements.stated(pathlib.Path({str(plain)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[3]).returncode == 0
