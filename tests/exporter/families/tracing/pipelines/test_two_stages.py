"""Pipelines of two stages: the first within the part that reads texts, its noise an input."""

from types import SimpleNamespace

import diffusers
import pytest
import torch

from engines.errors import RecipeError, UnsupportedError
from exporter.families.tracing.pipelines.scales import other_scales
from exporter.families.tracing.pipelines.two_stages import NOISE, EarlierNoise, answered, asked, staged, whole
from exporter.reference.record import record
from tests.exporter import equality
from tests.exporter.families.test_traced import RECIPE, family
from tools.coverage import trial
from tools.coverage.stages import kandinsky22

LARGE = RECIPE.replace("{source: %s}", "{source: %s, call: {prior_num_inference_steps: 3}}")
LARGE = LARGE.replace("[32, 32, 32]", "[128, 128, 128]").replace("[32, 32, 48]", "[128, 128, 128]")
WHOLE = RECIPE.replace("{source: %s}", "{source: %s, call: {prior_num_inference_steps: 3}}")


def test_noise_of_the_first_stage_is_what_was_given_in_order_and_else_zeros():
    given = torch.rand(1, 2, 3, 4)
    with EarlierNoise(given) as found:
        assert torch.equal(torch.randn(3, 4), given[0, 0])
        assert torch.equal(torch.randn((3, 4), dtype=torch.float64), given[0, 1].double())
    assert found.of_a_picture("it") == (2, 3, 4)
    with EarlierNoise() as zeros:
        assert not torch.randn((1, 2)).any()
        torch.randn(5)
    with pytest.raises(UnsupportedError, match="it: its first stage draws noises of several shapes"):
        zeros.of_a_picture("it")
    assert EarlierNoise().of_a_picture("it") == ()


def test_a_pipeline_of_one_stage_stays_as_it_is():
    alone = SimpleNamespace(prior_pipe=None)
    assert staged(alone) is alone


@pytest.fixture(scope="module")
def pipeline():
    return staged(kandinsky22())


def test_the_first_stage_computes_with_the_components_that_the_whole_has_now(pipeline):
    texts = {"prompt": ["a cat"], "negative_prompt": ["b"], "num_inference_steps": 3, "return_dict": False}
    pipeline.__dict__.update(answered(None))
    with torch.no_grad():
        first, _ = pipeline.encode_prompt(**texts)
        shapes = asked(pipeline).shapes
        pipeline.prior_prior.clip_mean.data += 1.0
        other, _ = pipeline.encode_prompt(**texts)
        pipeline.prior_prior.clip_mean.data -= 1.0
    assert shapes[:3] == [(2, 32)] * 3, "prompt and negative prompt are drawn side by side"
    assert torch.allclose(other - first, torch.ones_like(first), atol=1e-5)


def test_it_draws_what_diffusers_draws_of_the_same_noise(pipeline):
    source = kandinsky22().prior_pipe
    source.set_progress_bar_config(disable=True)
    texts = {"prompt": ["a cat"], "negative_prompt": ["b"], "num_inference_steps": 3}
    seeded = torch.Generator().manual_seed(3)
    wanted = source(**texts, generator=torch.Generator().manual_seed(3)).image_embeds
    pipeline.__dict__.update(answered(torch.stack([torch.randn(2, 32, generator=seeded) for _ in range(3)])[None]))
    with torch.no_grad():
        found, _ = pipeline.encode_prompt(**texts, return_dict=False)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_scales_of_the_first_stage_are_no_inputs_of_a_step(pipeline):
    assert other_scales(pipeline) == {}


def test_every_part_answers_as_diffusers_and_the_noise_is_an_input(model):
    made = family(model("kandinsky22"), text=WHOLE)
    assert made.inputs[NOISE].shape == ("batch", 3, 2, 32)
    assert [port.name for port in made.signature("text_encoder").inputs][-1] == NOISE
    assert made.components("text_encoder") == ("prior_text_encoder", "prior_prior")
    recording = record(made, made.recipe)
    assert {run.inputs[NOISE].shape[1:] for run in recording.runs} == {(3, 2, 32)}
    equality.answers(made, recording)


def test_a_second_stage_that_reads_the_text_in_one_tensor_with_the_negative_one_answers_as_diffusers(model):
    """Kandinsky 2.1's, with an encoder that diffusers keeps beside the pipeline: the negative text is always empty."""
    made = family(model("kandinsky"), text=WHOLE)
    assert made.components("text_encoder") == ("prior_text_encoder", "prior_prior", "text_encoder")
    assert list(made.tokenizer_names) == ["prior_tokenizer", "tokenizer"]
    recording = record(made, made.recipe)
    assert any(run.setting.guidance_scale == 1.0 for run in recording.runs)
    equality.answers(made, recording)


def test_a_picture_that_gets_noise_by_another_schedule_than_the_scheduler_s_is_refused(model):
    with pytest.raises(UnsupportedError, match="KandinskyImg2ImgCombinedPipeline puts noise into its picture by a schedule of"):
        _ = family(model("kandinsky"), text=WHOLE + "components: {vae_encoder: {}}").roles


def test_a_mask_that_a_pipeline_looks_into_itself_is_refused(model):
    with pytest.raises(UnsupportedError, match="KandinskyInpaintCombinedPipeline prepares its mask by code of its own"):
        family(model("kandinsky-inpaint"), text=WHOLE)


def test_a_class_of_two_stages_is_diffusers_own_too(pipeline):
    assert type(pipeline) is not diffusers.KandinskyV22CombinedPipeline
    assert whole(type(pipeline)) is diffusers.KandinskyV22CombinedPipeline
    assert whole(diffusers.FluxPipeline) is diffusers.FluxPipeline


def test_pictures_to_start_from_are_refused_where_diffusers_starts_from_none(model):
    with pytest.raises(RecipeError, match="diffusers starts StableCascadeCombinedPipeline from no picture"):
        family(model("cascade"), text=LARGE + "components: {vae_encoder: {}}")


def test_inpainting_that_puts_back_what_its_mask_keeps_is_refused():
    with pytest.raises(UnsupportedError, match="puts back what its mask keeps after every step, and shows its network"):
        staged(kandinsky22("KandinskyV22InpaintCombinedPipeline", 9))


READERS = {"cascade": ["prior_tokenizer"], "wuerstchen": ["prior_tokenizer", "tokenizer"]}


@pytest.mark.parametrize("name", READERS)
def test_a_first_stage_that_draws_cells_answers_as_diffusers(model, name):
    """Its scheduler looks its times up; Würstchen's second stage reads the text again."""
    made = family(model(name), text=LARGE)
    assert list(made.tokenizer_names) == READERS[name]
    assert made.inputs[NOISE].shape == ("batch", 4, 1, 4, 3, 3)
    assert not any("scheduler" in note for note in made.notes), "the first stage's is run"
    recording = record(made, made.recipe)
    equality.answers(made, recording)


@pytest.mark.long
def test_a_bundle_of_both_stages_draws_what_diffusers_draws_of_a_seed():
    found = trial.row("kandinsky22")
    assert (found["state"], found["guidance"]) == ("works", "classifier_free")
