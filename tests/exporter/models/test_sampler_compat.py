"""A sampler that a model was not made for is refused with its line and the right one; force builds it and says so."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file

from engines.errors import RecipeError, UnsupportedError
from exporter import cli
from exporter.models import architectures, sampler_compat
from exporter.models.resolve import resolve
from exporter.recipe import shipped
from exporter.recipe.schema import MadeFor, Recipe
from exporter.report import describe
from exporter.stages.plan import Plan
from tests.exporter import models

ROOT = Path(__file__).parents[3]
TEXT = """\
model: {source: %s, weights: random}
sampler:
  scheduler: %s
  config: {timestep_spacing: %s}
  steps: [4]
  guidance: {mode: none}
shapes: {height: [512, 512, 512], width: [512, 512, 512]}
"""


def parsed(source, *overrides, scheduler="EulerDiscreteScheduler", spacing="trailing"):
    return Recipe.parse(TEXT % (source, scheduler, spacing), "x", overrides=overrides, shown="x.yaml")


def plan_of(case, *overrides):
    arguments, given, *_ = WRONG[case]
    return parsed(arguments[0], *given, *overrides, **dict(zip(("scheduler", "spacing"), arguments[1:], strict=False)))


def told(recipe):
    with pytest.raises(RecipeError) as caught:
        Plan(recipe)
    return recipe.located(caught.value.problems)


#: Recipe, overrides → the problem's place, and words of it.
WRONG = {
    "guidance on Turbo": (
        ("sdxl-turbo",),
        ["sampler.guidance={mode: classifier_free, scale: 7.5}"],
        "--set sampler.guidance={mode: classifier_free, scale: 7.5}:  sampler.guidance.scale: 7.5",
        "takes no guidance; write scheduler: EulerAncestralDiscreteScheduler, config: {timestep_spacing: trailing}",
    ),
    "LCMScheduler on a plain model": (
        ("sdxl-base", "LCMScheduler"),
        [],
        "x.yaml:3  sampler.scheduler: LCMScheduler is for latent consistency models",
        "the network has no guidance input (unet.time_cond_proj_dim)",
    ),
    "LCMScheduler on Turbo": (
        ("sdxl-turbo", "LCMScheduler"),
        [],
        "x.yaml:3  sampler.scheduler: LCMScheduler is for latent",
        "this is a model of adversarial distillation",
    ),
    "leading on Lightning": (
        ("sdxl-base", "EulerDiscreteScheduler", "leading"),
        ["model.made_for=lightning"],
        "x.yaml:4  sampler.config.timestep_spacing: timestep_spacing is 'leading', but",
        "as model.made_for says, and needs 'trailing'; write scheduler: EulerDiscreteScheduler",
    ),
    "leading from the model's own config": (
        ("sdxl-base",),
        ["model.made_for=koala_lightning", "sampler.config={}"],
        "--set sampler.config={}:  sampler.config: timestep_spacing is 'leading', from the model's own scheduler config",
        "needs 'trailing'",
    ),
    "the scheduler's default": (
        ("sd-v2-1",),
        ["model.made_for=turbo", "sampler.config={}"],
        "--set sampler.config={}:  sampler.config: timestep_spacing is the scheduler's default, but",
        "needs 'trailing'",
    ),
    "another solver on LCM": (
        ("lcm-sdxl",),
        [],
        "x.yaml:3  sampler.scheduler: EulerDiscreteScheduler, but",
        "needs LCMScheduler; write scheduler: LCMScheduler",
    ),
    "another solver on TCD": (("sdxl-base",), ["model.made_for=tcd"], "x.yaml:3  sampler.scheduler:", "needs TCDScheduler"),
    "much guidance on an LCM LoRA": (
        ("sdxl-base", "LCMScheduler"),
        ["model.made_for=lcm_lora", "sampler.guidance={mode: classifier_free, scale: 7.5}"],
        "--set sampler.guidance={mode: classifier_free, scale: 7.5}:  sampler.guidance.scale: 7.5",
        "takes a scale of at most 2",
    ),
    "four steps on a one-step model": (("sdxs-512-0.9",), [], "x.yaml:5  sampler.steps: 4, but", "made for 1 step"),
    "zero SNR and epsilon": (
        ("sd-v1-5", "DDIMScheduler"),
        ["sampler.config.rescale_betas_zero_snr=true"],
        "--set sampler.config.rescale_betas_zero_snr=true:  sampler.config.rescale_betas_zero_snr: ",
        "needs prediction_type: v_prediction",
    ),
    "zero SNR and leading": (
        ("sd-v2-1", "DDIMScheduler", "leading"),
        ["sampler.config.rescale_betas_zero_snr=true"],
        "--set sampler.config.rescale_betas_zero_snr=true:  sampler.config.rescale_betas_zero_snr: ",
        "needs timestep_spacing: trailing",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_pair_is_refused_with_its_place_and_the_right_one(case):
    *_, start, words = WRONG[case]
    (problem,) = told(plan_of(case))
    assert problem.startswith(start)
    assert words in problem
    assert problem.endswith("; or sampler.force: true")


@pytest.mark.parametrize("case", WRONG)
def test_force_builds_it_and_the_bundle_says_so(case):
    sentence = WRONG[case][2].partition("  ")[2]
    plan = Plan(plan_of(case, "sampler.force=true"))
    assert any(note.startswith(f"forced: {sentence}") for note in plan.pairing.notes)


def test_force_changes_no_key():
    plain, forced = (Plan(parsed("sdxl-base", f"sampler.force={word}")) for word in ("false", "true"))
    assert [stage.key.digest for stage in plain.stages] == [stage.key.digest for stage in forced.stages]
    assert forced.pairing.notes == ()


@pytest.mark.parametrize(
    ("recipe", "note"),
    [
        (parsed("sdxl-turbo", "sampler.steps=[25]"), "unusual: sampler.steps: 25"),
        (parsed("lcm-sdxl", scheduler="LCMScheduler"), "unusual: sampler.guidance.mode: none"),
        (parsed("sdxl-turbo", "sampler.guidance={mode: classifier_free, scale: 1}"), "unusual: sampler.guidance.mode: class"),
        (
            parsed("sdxl-base", "sampler.guidance={mode: classifier_free, scale: 0}"),
            "unusual: sampler.guidance.scale: 0, and at 1 and below guidance is off, as in diffusers; mode: none draws the same",
        ),
    ],
    ids=["many steps", "no guidance", "guidance of no effect", "guidance that is off"],
)
def test_what_is_merely_unusual_is_noted(recipe, note):
    notes = Plan(recipe).pairing.notes
    assert len(notes) == 1
    assert notes[0].startswith(note)


def test_problems_of_family_and_sampler_come_together():
    found = told(parsed("sdxl-base", "shapes.height=[500, 512, 512]", scheduler="LCMScheduler"))
    assert ["multiple of" in problem for problem in found] == [True, False]


def test_a_little_guidance_suits_an_lcm_lora():
    guidance = "sampler.guidance={mode: classifier_free, scale: 1.5}"
    judged = Plan(parsed("sdxl-base", guidance, "model.made_for=lcm_lora", scheduler="LCMScheduler")).pairing
    assert (judged.problems, judged.notes) == ((), ())


def test_own_times_need_no_spacing():
    plan = Plan(parsed("sdxl-turbo", "sampler.timesteps=[999, 749, 499, 249]", spacing="leading"))
    assert plan.pairing.problems == ()


@pytest.mark.parametrize(
    ("component", "name", "kind", "steps"),
    [
        ("model_index", "stabilityai/sdxl-turbo", "turbo", None),
        ("unet", "/cache/models--stabilityai--sd-turbo/snapshots/unet", "", None),
        ("unet", "pt_koala_1b_sdxl_lightning_4step_laion_pop_kd_sdxl_base_1024_8x4x4/checkpoint-350000", "koala_lightning", None),
        ("unet", "sdxl_lightning_4step_unet", "lightning", 4),
        ("scheduler", "IDKiro/sdxs-512-0.9", "sdxs", None),
        ("unet", "Lykon/dreamshaper-xl-v2-turbo", "", None),
        ("unet", "stabilityai/stable-diffusion-xl-base-1.0", "", None),
    ],
)
def test_a_local_folder_is_known_by_the_names_in_its_configs(tiny_sdxl, tmp_path, component, name, kind, steps):
    folder = Path(shutil.copytree(tiny_sdxl, tmp_path / "model"))
    special = {"model_index": "model_index.json", "scheduler": "scheduler/scheduler_config.json"}
    file = special.get(component, f"{component}/config.json")
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | {"_name_or_path": name}))
    recipe = parsed(folder)
    made = sampler_compat.made_for(recipe, resolve(recipe.model, recipe.root))
    assert (made.kind, made.steps) == (kind, steps)
    if kind:
        assert made.told_by == f"{component}'s _name_or_path {name!r}"


@pytest.mark.parametrize(("embedding", "kind"), [("positional", "lcm"), ("fourier", "")])
def test_what_steers_beside_the_time_is_guidance_but_of_an_upscaler_of_random_waves(tiny_sdxl, tmp_path, embedding, kind):
    folder = Path(shutil.copytree(tiny_sdxl, tmp_path / "model"))
    file = folder / "unet/config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"time_cond_proj_dim": 896, "time_embedding_type": embedding}))
    recipe = parsed(folder)
    assert sampler_compat.made_for(recipe, resolve(recipe.model, recipe.root)).kind == kind


def test_a_file_made_for_four_steps_is_noted_at_eight(tiny_sdxl, tmp_path):
    folder = Path(shutil.copytree(tiny_sdxl, tmp_path / "model"))
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_name_or_path": "sdxl_lightning_4step_unet"}))
    assert Plan(parsed(folder)).pairing.notes == ()
    (note,) = Plan(parsed(folder, "sampler.steps=[8]")).pairing.notes
    assert "sampler.steps: 8" in note
    assert "made for 4 steps" in note


def test_the_command_line_refuses_with_exit_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT % ("sdxl-base", "LCMScheduler", "trailing"))
    with pytest.raises(SystemExit) as caught:
        cli.main(["build", str(path), "--dry-run"])
    assert caught.value.code == 2
    assert f"{path}:3  sampler.scheduler: LCMScheduler is for latent consistency models" in capsys.readouterr().err


@pytest.mark.parametrize("scheduler", ["EulerDiscretScheduler", "IPNDMScheduler"])
def test_a_dry_run_compiles_the_sampler(tiny_sd, tmp_path, monkeypatch, capsys, scheduler):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "mine.yaml"
    folder = Path(shutil.copytree(tiny_sd, tmp_path / "model"))
    own = folder / "scheduler" / "scheduler_config.json"
    own.write_text(json.dumps(json.loads(own.read_text()) | {"prediction_type": "v_prediction"}))
    path.write_text((TEXT % (folder, scheduler, "trailing")).replace("  config: {timestep_spacing: trailing}\n", ""))
    with pytest.raises(SystemExit) as caught:
        cli.main(["build", str(path), "--dry-run"])
    err = capsys.readouterr().err
    assert caught.value.code == 2, err
    typo, lacking = "did you mean 'EulerDiscreteScheduler'", "has no prediction_type, and the model's own"
    assert f"{path}:3  sampler.scheduler: " in err
    assert (typo if scheduler.startswith("Euler") else lacking) in err


class TestLoras:
    def recipe(self, source, loras, scheduler="LCMScheduler"):
        return parsed(source, "model.weights=pretrained", f"model.loras=[{loras}]", scheduler=scheduler)

    @pytest.fixture
    def file(self, tiny_sdxl, tmp_path):
        """A LoRA of one layer, under a name that tells nothing."""
        unet = json.loads((tiny_sdxl / "unet" / "config.json").read_text())
        a, b = torch.ones(2, 4, 3, 3), torch.ones(unet["block_out_channels"][0], 2, 1, 1)
        tensors = {"unet.conv_in.lora_A.weight": a, "unet.conv_in.lora_B.weight": b}

        def write(name, **metadata):
            save_file(tensors, tmp_path / name, metadata)
            return tmp_path / name

        return write

    @pytest.mark.parametrize("name", ["lcm-lora-mine.safetensors", "mine-LCM_LoRA.safetensors"])
    def test_an_lcm_lora_is_known_by_its_file(self, tiny_sdxl, file, name):
        plan = Plan(self.recipe(tiny_sdxl, f"{{source: {file(name)}}}"))
        assert plan.pairing.made.kind == "lcm_lora"
        assert plan.pairing.notes == ()

    @pytest.mark.parametrize("key", ["modelspec.title", "ss_output_name"])
    def test_or_by_the_title_inside(self, tiny_sdxl, file, key):
        recipe = self.recipe(tiny_sdxl, f"{{source: {file('a.safetensors', **{key: 'my LCM-LoRA'})}}}")
        assert Plan(recipe).pairing.made.told_by == "model.loras[0] 'my LCM-LoRA'"

    def test_or_by_the_recipe(self, tiny_sdxl, file):
        recipe = self.recipe(tiny_sdxl, f"{{source: {file('a.safetensors')}}}")
        assert "add an LCM LoRA to model.loras" in told(recipe)[0]
        stated = Recipe.parse(recipe.text, "x", overrides=["model.made_for=lcm_lora"])
        assert Plan(stated).pairing.made.kind == "lcm_lora"

    def test_a_style_changes_nothing(self, tiny_sdxl, file):
        plan = Plan(self.recipe(tiny_sdxl, f"{{source: {file('watercolour.safetensors')}}}", "EulerDiscreteScheduler"))
        assert plan.pairing.made.kind == ""

    def test_a_hub_id_is_enough(self):
        recipe = self.recipe("sdxl-base", "{source: h1t/TCD-SD15-LoRA}")
        assert sampler_compat.made_by_loras(recipe).kind == "tcd"
        lightning = "{source: ByteDance/SDXL-Lightning, weight_name: sdxl_lightning_8step_lora.safetensors}"
        assert sampler_compat.made_by_loras(self.recipe("sdxl-base", lightning)).steps == 8

    def test_two_for_different_samplers_are_refused(self, tiny_sdxl, file):
        first, second = file("lcm-lora.safetensors"), file("tcd-lora.safetensors")
        (problem,) = told(self.recipe(tiny_sdxl, f"{{source: {first}}}, {{source: {second}}}"))
        assert "model.loras: model.loras[0]" in problem
        assert "is a trajectory consistency model" in problem


def test_inspect_needs_neither_weights_nor_loras():
    outline, note = describe._without_weights(Recipe.load(ROOT / "recipes" / "sdxl-lcm-lora.yaml"))
    assert (outline.model.source, outline.model.weights, outline.model.loras) == ("sdxl-base", "random", ())
    assert outline.model.made_for == "lcm_lora"
    assert "named architecture sdxl-base" in note
    assert Plan(outline).pairing.problems == ()


def test_the_data_is_whole():
    kinds = sampler_compat.pairings()
    assert set(get_args(MadeFor)) == set(kinds)
    assert {name for each in kinds.values() for name in each.architectures} <= set(architectures.names())
    assert all(each.sources for each in kinds.values())


@pytest.mark.parametrize("path", shipped.recipes().values(), ids=lambda path: path.stem)
def test_no_shipped_recipe_pairs_wrongly_or_oddly(path):
    """Under its own hub id, which planning without a network replaces."""
    recipe = Recipe.load(path)
    line = next((line for line in path.read_text().splitlines() if "model.source=" in line), "")
    outline = Recipe.load(path, re.findall(r"--set (\S+)", line)) if line else recipe
    judged = sampler_compat.judge(recipe, resolve(outline.model, outline.root))
    assert (judged.problems, judged.notes) == ((), ())


@pytest.mark.parametrize(
    ("own", "name", "config", "words"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "EulerDiscreteScheduler", "{}", "flow_shift: 3.0}"),
        ({"_class_name": "EDMEulerScheduler"}, "EulerDiscreteScheduler", "{}", "take EDMEulerScheduler or"),
        ({"_class_name": "EulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler", "{}", "as EulerDiscreteScheduler is"),
        ({"_class_name": "EulerDiscreteScheduler"}, "EulerDiscreteScheduler", "{timestep_type: continuous}", "sampler.config: "),
    ],
)
def test_a_sampler_of_another_noise_process_is_refused(tmp_path, own, name, config, words):
    folder = models.save_sd(tmp_path / "model")
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(own))
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"scheduler": ["diffusers", own["_class_name"]]}))
    recipe = Recipe.parse(TEXT.replace("{timestep_spacing: %s}", config) % (folder, name), "x")
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": "pretrained"})})
    checkpoint = resolve(recipe.model, tmp_path)
    (problem,) = [each for each in sampler_compat.judge(recipe, checkpoint).problems if "was trained by" in each]
    assert words in problem
    forced = recipe.model_copy(update={"sampler": recipe.sampler.model_copy(update={"force": True})})
    assert not sampler_compat.judge(forced, checkpoint).problems


def test_flow_matching_stays_flow_matching_under_another_solver(tmp_path):
    folder = models.save_sd(tmp_path / "model")
    own = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(own))
    flow = "{prediction_type: flow_prediction, use_flow_sigmas: true, flow_shift: 3.0}"
    recipe = Recipe.parse(TEXT.replace("{timestep_spacing: %s}", flow) % (folder, "UniPCMultistepScheduler"), "x")
    assert not sampler_compat.judge(recipe, resolve(recipe.model, tmp_path)).problems


def test_a_model_without_a_scheduler_or_with_a_list_for_one_is_refused(tmp_path):
    folder = models.save_sd(tmp_path / "model")
    config, index = folder / "scheduler/scheduler_config.json", folder / "model_index.json"
    named = json.loads(config.read_text())
    config.write_text(json.dumps({key: value for key, value in named.items() if key != "_class_name"}))
    model = Recipe.parse(TEXT % (folder, "EulerDiscreteScheduler", "trailing"), "x").model
    assert resolve(model, tmp_path).configs["scheduler"]["_class_name"] == json.loads(index.read_text())["scheduler"][1]
    config.write_text("[1]")
    with pytest.raises(UnsupportedError, match="holds no mapping"):
        resolve(model, tmp_path)
    for told in (None, [None, None]):
        index.write_text(json.dumps({**json.loads(index.read_text()), "scheduler": told}))
        with pytest.raises(UnsupportedError, match=r"(?s)names no scheduler.*Copy the scheduler folder"):
            resolve(model, tmp_path)


@pytest.mark.parametrize("asked", ["{power: 1.5}", "ays-sd-10"])
def test_grids_that_count_on_the_usual_schedule_are_refused_on_another(asked):
    recipe = parsed("sd-v1-5", "sampler.steps=[10]", f"sampler.timesteps={asked}")
    checkpoint = Plan(recipe).checkpoint
    assert not sampler_compat.judge(recipe, checkpoint).problems
    other = {**checkpoint.configs, "scheduler": {**checkpoint.configs["scheduler"], "num_train_timesteps": 40}}
    (problem,) = sampler_compat.judge(recipe, replace(checkpoint, configs=other)).problems
    assert problem.startswith("sampler.timesteps: counts on a schedule of 1000 steps, and this model's has 40")
    numbers = parsed("sd-v1-5", "sampler.steps=[2]", "sampler.timesteps=[39, 20]")
    assert not sampler_compat.judge(numbers, replace(checkpoint, configs=other)).problems
