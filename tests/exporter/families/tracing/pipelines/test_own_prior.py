"""Pipelines whose own call samples a prior first: the prior within the part that reads texts, the rest given what it left."""

import numpy as np
import pytest
import torch

from exporter.families.tracing.pipelines.own_prior import divided, has_own_prior
from exporter.families.tracing.pipelines.two_stages import NOISE, answered
from exporter.families.tracing.whole_numbers import levels, noising
from exporter.reference.record import record
from tests.exporter import equality
from tests.exporter.families.test_traced import RECIPE, family
from tools.coverage import beside, unclip
from tools.coverage.clip_images import PROJECTED

CALL = {"prior_num_inference_steps": 3, "noise_level": 100}
WHOLE = RECIPE.replace("{source: %s}", "{source: %s, call: {prior_num_inference_steps: 3, noise_level: 100}}")


def test_a_pipeline_without_a_prior_stays_as_it_is():
    made = unclip.stable_unclip()
    assert divided(made) is made
    assert not has_own_prior(made)


@pytest.fixture(scope="module")
def pipeline():
    return divided(unclip.stable_unclip_prior())


def test_its_level_is_no_input_and_its_schedulers_are_used(pipeline):
    assert has_own_prior(pipeline)
    assert levels(pipeline) == {}
    assert noising(pipeline) == {"prior_scheduler", "image_noising_scheduler"}


@pytest.mark.parametrize(("level", "scale", "guided"), [(100, 4.0, True), (0, 1.0, False)])
def test_the_embedding_and_the_picture_are_diffusers_of_the_same_noise(pipeline, level, scale, guided):
    source, kept = unclip.stable_unclip_prior(), []
    source.set_progress_bar_config(disable=True)
    asked = {"prior_num_inference_steps": 3, "prior_guidance_scale": scale, "noise_level": level}
    real = source.noise_image_embeddings
    source.noise_image_embeddings = lambda **given: kept.append(real(**given)) or kept[-1]
    both = {"prompt": ["a cat"], "num_inference_steps": 2, "height": 32, "width": 32, "output_type": "np"}
    both |= {"negative_prompt": ["b"], "guidance_scale": 4.0} if guided else {"guidance_scale": 1.0}
    wanted = source(**both, **asked, generator=torch.Generator().manual_seed(3)).images
    seeded = torch.Generator().manual_seed(3)
    pipeline.__dict__.update(answered(torch.stack([torch.randn(1, PROJECTED, generator=seeded) for _ in range(4)])[None]))
    words = {"prompt": ["a cat"], "negative_prompt": ["b"] if guided else None}
    with torch.no_grad():
        found = pipeline.encode_prompt(**words, do_classifier_free_guidance=guided, **asked)
        assert torch.allclose(found[2], kept[0], atol=1e-5)
        pipeline.__dict__["encode_prompt"] = lambda **_: found
        drawn = pipeline(**both, **asked, generator=seeded).images
        del pipeline.__dict__["encode_prompt"]
    assert wanted.std() > 1e-3
    assert np.abs(drawn - wanted).max() < 1e-5


def test_the_prior_computes_with_the_components_that_the_pipeline_has_now(pipeline):
    words = {"prompt": ["a cat"], "negative_prompt": ["b"], "do_classifier_free_guidance": True, **CALL}
    pipeline.__dict__.update(answered(None))
    with torch.no_grad():
        first = pipeline.encode_prompt(**words)[2]
        pipeline.prior.clip_mean.data += 1.0
        other = pipeline.encode_prompt(**words)[2]
        pipeline.prior.clip_mean.data -= 1.0
    assert not torch.allclose(first, other)


def test_every_part_answers_as_diffusers_and_the_noise_is_an_input(tmp_path):
    unclip.stable_unclip_prior().save_pretrained(tmp_path / "model")
    made = family(tmp_path / "model", text=WHOLE)
    assert made.inputs[NOISE].shape == ("batch", 4, 1, PROJECTED), "the prior's, two between its steps, and the embedding's"
    assert [*made.inputs] == [NOISE]
    # The normalizer's own code is never called as a network's, and its statistics are in the graph.
    assert made.components("text_encoder") == ("prior_text_encoder", "prior", "text_encoder", "image_normalizer")
    assert made.notes == []
    recording = record(made, made.recipe)
    equality.answers(made, recording)


@pytest.mark.long
def test_a_bundle_draws_what_diffusers_draws_of_a_seed():
    found = beside.row("stable-unclip")
    assert (found["state"], found["guidance"]) == ("works", "classifier_free")
