"""What is left out is known to do no harm, or named; every field that a class of diffusers or transformers reads is known."""

import inspect
import json
import shutil

import pytest

from exporter.models import leftovers
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions

#: Fields that transformers wrote into every config before version 5, of training and of making text.
OLD = """
add_cross_attention bad_words_ids begin_suppress_tokens cross_attention_hidden_size decoder_start_token_id
diversity_penalty do_sample dropout early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty
finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing is_decoder length_penalty max_length
min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores prefix pruned_heads
remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id suppress_tokens task_specific_params
temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript
typical_p use_bfloat16 use_cache
""".split()  # noqa: SIM905 - a list of forty lines says no more


def read() -> dict[str, list[str]]:
    """Class → the fields that it reads, from the libraries themselves."""
    import diffusers
    import transformers
    from diffusers import SchedulerMixin, schedulers

    def own(cls):
        return set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs", "args"}

    found = {name: own(getattr(diffusers, name)) for name in ("AutoencoderKL", "AutoencoderTiny", "UNet2DConditionModel")}
    text = {*transformers.CLIPTextConfig().to_dict(), *transformers.PretrainedConfig().to_dict(), *OLD}
    found |= dict.fromkeys(("CLIPTextModel", "CLIPTextModelWithProjection"), text)
    every = [getattr(schedulers, name) for name in dir(schedulers) if name.endswith("Scheduler")]
    found["Scheduler"] = set().union(*(own(cls) for cls in every if issubclass(cls, SchedulerMixin)))
    return {name: sorted(fields) for name, fields in sorted(found.items())}


def test_the_list_is_the_libraries_own():
    listed, wanted = json.loads(leftovers._FIELDS.read_text()), read()
    assert {name: sorted(set(wanted[name]) - set(listed.get(name, ()))) for name in wanted} == {name: [] for name in wanted}, (
        "write config_fields.json anew: python -m tests.exporter.models.test_leftovers"
    )


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "text_encoder_2", "scheduler"])
def test_an_unknown_field_is_named(component, tiny_sdxl, tmp_path):
    import shutil

    from exporter.recipe.schema import Recipe
    from exporter.stages.plan import Plan

    folder = shutil.copytree(tiny_sdxl, tmp_path / "model")
    file = folder / component / ("scheduler_config.json" if component == "scheduler" else "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"new_field": [1, 2]}))
    text = f"model: {{source: {folder}}}\nsampler: {{steps: [2]}}\nshapes: {{height: [32, 32, 32], width: [32, 32, 32]}}\n"
    (note,) = Plan(Recipe.parse(text, "x")).notes
    assert note.startswith(f"{component}: its config has new_field: [1, 2], which ")


@pytest.mark.parametrize(
    "name",
    [
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "position_ids",
        "logit_scale",
        "conditioner.embedders.0.transformer.text_projection.weight",
        "text_projection",
        "visual.conv1.weight",
        "model_ema.decay",
        "first_stage_model.loss.logvar",
        "alphas_cumprod_prev",
        "sqrt_one_minus_alphas_cumprod",
        "posterior_mean_coef1",
        "denoiser.sigmas",
        "model.denoiser.log_sigmas",
        "global_step",
        "model.diffusion_model.scaled_fp8",
        "a.to_q.scale_input",
        "a.to_q.input_scale",
    ],
)
def test_what_does_no_harm(name):
    assert leftovers.harmless(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "position_ids.weight",
        "text_projection.bias",
        "visually.x",
        "ema.decay",
        "my.betas",
        "sigmas",
        "global_steps",
        "losses.x",
    ],
)
def test_a_name_that_only_looks_like_it_is_not_let_pass(name):
    assert not leftovers.harmless(name)


def test_what_is_left_out_is_counted_by_how_it_begins():
    names = ["b.one", "a.x", "a.y", "lone"]
    assert leftovers.sentence("m.safetensors", names) == (
        "m.safetensors: left out, of no network that is built: a (2 weights), b.one, lone"
    )
    assert leftovers.sentence("m.safetensors", []) == ""
    many = leftovers.sentence("m", [f"{sign}.x" for sign in "ihgfedcba"])
    assert many.endswith("built: a.x, b.x, c.x, d.x, e.x, f.x, g.x, h.x …")
    assert leftovers.brief(["1"] * 8) == ", ".join("1" * 8)


INDEX = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0", "unet": ["diffusers", "UNet2DConditionModel"]}


def left(entries, used=("unet",), pipeline="StableDiffusionPipeline"):
    return list(leftovers.components(INDEX | entries, used, pipeline))


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({}, []),
        ({"safety_checker": ["x", None], "requires_safety_checker": True, "spare": None}, []),
        ({"safety_checker": ["x", "Checker"]}, ["left out: safety_checker (Checker); it looks at finished pictures"]),
        (
            {"controlnet_2": ["x", "Net"]},
            ["left out: controlnet_2 (Net); its pictures steer nothing, and what is drawn is the plain model's"],
        ),
        ({"prior": ["x", "Prior"]}, ["left out: prior (Prior); nothing here reads it"]),
        ({"new": []}, ["left out: new: [] of model_index.json, which is no option that is read"]),
        ({"eta": 0.5}, ["left out: eta: 0.5 of model_index.json, which is no option that is read"]),
        ({"_class_name": "StableDiffusionInpaintPipeline"}, []),
        (
            {"_class_name": "StableDiffusionSAGPipeline"},
            [
                (
                    "the model is saved as StableDiffusionSAGPipeline; the bundle draws what StableDiffusionPipeline draws with "
                    "its networks"
                )
            ],
        ),
    ],
)
def test_entries_of_an_index_that_nothing_is_made_of(entries, told):
    assert left(entries) == told


def test_what_is_used_is_not_left_out():
    assert left({"prior": ["x", "Prior"]}, used=("unet", "prior")) == []
    assert left({}, used=()) == ["left out: unet (UNet2DConditionModel); nothing here reads it"]


def test_fields_that_no_class_reads_are_named_with_their_values():
    configs = {
        "model_index": {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "Unlisted"]},
        "unet": {"_name_or_path": "x", "in_channels": 4, "colour": "red", "depth": [1]},
        "vae": {"anything": 1},
        "scheduler": {"_class_name": "Mine", "num_train_timesteps": 1000, "speed": 2},
        "safety_checker": {"unread": 1},
    }
    assert list(leftovers.fields(configs, {"unet", "vae", "scheduler", "absent"})) == [
        "scheduler: its config has speed: 2, which Mine does not read",
        'unet: its config has colour: "red", depth: [1], which UNet2DConditionModel does not read',
    ]


if __name__ == "__main__":
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(fields)}" for name, fields in read().items())
    leftovers._FIELDS.write_text(f"{{\n{rows}\n}}\n")


def test_a_scheduler_s_config_of_another_class_is_told():
    assert not [
        *leftovers.scheduler("DDIMScheduler", {"_class_name": "DDIMScheduler"}),
        *leftovers.scheduler("DDIMScheduler", {}),
    ]
    (told,) = leftovers.scheduler("DDIMScheduler", {"_class_name": "PNDMScheduler"})
    assert told.startswith("scheduler: model_index.json names DDIMScheduler, which diffusers takes; the PNDMScheduler that saved")


def test_of_two_classes_of_a_scheduler_the_index_decides_as_in_diffusers(tiny_sd, tmp_path):
    file = shutil.copytree(tiny_sd, tmp_path / "model") / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scheduler": ["diffusers", "HeunDiscreteScheduler"]}))
    found = resolve(ModelOptions(source=str(file.parent)), tmp_path)
    assert found.configs["scheduler"]["_class_name"] == "HeunDiscreteScheduler"
    assert [note.partition(",")[0] for note in found.notes] == ["scheduler: model_index.json names HeunDiscreteScheduler"]
