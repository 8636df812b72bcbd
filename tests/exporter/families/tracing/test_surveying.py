"""In which way a pipeline is surveyed: shown pictures, and given texts without what pads them."""

from types import SimpleNamespace

import pytest
from torch import nn

from engines.errors import UnsupportedError
from exporter.families.tracing import surveying
from exporter.families.tracing.following.dry_run import Leaf
from exporter.families.tracing.following.own_texts import Ones
from exporter.families.tracing.steps import crossings, neutral
from exporter.families.tracing.surveying import surveyed
from tools.coverage.models import BESIDE, MADE


def test_a_network_that_asks_a_mask_for_lengths_is_given_texts_without_what_pads_them():
    made = MADE["lumina2"]()
    for network in made.components.values():
        if isinstance(network, nn.Module):
            network.to("meta")
    found = surveyed(made, {}, "classifier_free", 64, 64, 2)
    assert found.cut
    named = [leaf.port_shape if isinstance(leaf, Leaf) else leaf for each in found.conditioning for leaf in each]
    lengths = "prompt_embeds_length", "negative_prompt_embeds_length"
    assert [leaf.dim for leaf in named if isinstance(leaf, Ones)] == list(lengths)
    assert [leaf for leaf in named if not isinstance(leaf, Ones)] == [(length, 32) for length in lengths]
    assert {name: each.max for name, each in found.open.items()} == dict.fromkeys(
        ("tokenizer_length", "negative_tokenizer_length", *lengths), 256
    )
    assert not any(each.masked for each in found.readings.values())
    assert [found.open[name].min for name in ("negative_tokenizer_length", lengths[1])] == [0, 0], "a negative prompt of no ids"


def test_a_pipeline_that_encodes_its_prompt_within_its_call_is_told():
    with pytest.raises(UnsupportedError, match="OmniGenPipeline reads its prompt within its call"):
        surveyed(BESIDE["omnigen"](), {}, "classifier_free", 32, 32, 2)


def test_a_network_that_computes_with_a_mask_alone_is_given_padded_texts():
    made = MADE["pixart-sigma"]()
    for network in made.components.values():
        if isinstance(network, nn.Module):
            network.to("meta")
    found = surveyed(made, {}, "classifier_free", 32, 32, 2)
    assert not found.cut
    assert not found.open


def test_where_a_step_is_computed_from_the_noises_level_that_is_followed():
    made = BESIDE["stable-diffusion-latent-upscaler"]()
    for name in ("unet", "vae", "text_encoder"):
        getattr(made, name).to("meta")
    found = surveyed(made, {}, "classifier_free", 32, 32, 2)
    assert (found.leveled, found.enlarges) == (True, 2)
    assert found.off == 1.0, "guidance is compared with 0 too, to leave the prompt out"
    assert (found.noises, found.drawn) == ([(1, 4, 8, 8), (1, 4, 16, 16)], 1)
    own = SimpleNamespace(draw=0)
    assert crossings.Conditions.channels(own, found) == 1, "of a picture of half the sides, row by row"
    assert neutral.scale(found) == 1.0


def test_a_pipeline_that_adds_noise_of_no_seed_to_its_pictures_is_fed_none():
    made = MADE["stable-diffusion-3-controlnet"]()
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "controlnet"):
        getattr(made, name).to("meta")
    found = surveyed(made, {}, "classifier_free", 32, 32, 2)
    assert (found.unseeded, found.draws, found.drawn) == (1, 1, 0)
    assert found.pictures == {"control_image": "control_image"}


def test_a_pipeline_that_can_do_without_pictures_is_shown_them_where_they_are_wanted():
    made = MADE["flux-kontext"]()
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        getattr(made, name).to("meta")
    for shown in (False, True):
        found = surveyed(made, {}, "embedded", 32, 32, 2, shown=shown)
        assert found.pictures == ({"image": "image"} if shown else {})
        assert found.piles == shown


def test_the_pipeline_itself_judges_what_its_call_is_given():
    made = MADE["stable-diffusion-xl-controlnet-union"]()
    for name in ("unet", "vae", "text_encoder", "text_encoder_2", "controlnet"):
        getattr(made, name).to("meta")

    def survey(call):
        return surveyed(made, call, "classifier_free", 32, 32, 2, judged=True)

    assert survey({"control_mode": [1]}).pictures == {"control_image": "control_image"}
    with pytest.raises(UnsupportedError, match=r"len\(control_image\) == len\(control_mode\)"):
        survey({"control_mode": [1, 2]})
    with pytest.raises(UnsupportedError, match="must be lower than 4"):
        survey({"control_mode": [7]})


def test_of_two_refusals_the_one_is_told_before_which_the_pipeline_comes_farther():
    made = MADE["qwenimage21"]()
    for each in ("transformer", "vae", "text_encoder"):
        getattr(made, each).to("meta")
    made._img_token_id = made.processor.tokenizer.convert_tokens_to_ids("e")  # of which the network counts too many
    with pytest.raises(UnsupportedError, match="QwenImage21Pipeline: its own code cannot be followed in transformer"):
        surveyed(made, {}, "classifier_free", 32, 32, 2)


def test_noise_of_tokens_is_refused():
    made = MADE["ideogram4"]()
    for each in ("transformer", "unconditional_transformer", "vae", "text_encoder"):
        getattr(made, each).to("meta")
    with pytest.raises(UnsupportedError, match=r"Ideogram4Pipeline draws noise of \[1, 64, 16\], and latents are"):
        surveyed(made, {"guidance_schedule": None, "max_sequence_length": 96}, "classifier_free", 32, 32, 2)


def test_texts_that_nothing_cuts_off_are_refused():
    made = MADE["qwenimage21"]()
    for each in ("transformer", "vae", "text_encoder"):
        getattr(made, each).to("meta")
    found = surveyed(made, {}, "classifier_free", 32, 32, 2)
    with pytest.raises(UnsupportedError, match="QwenImage21Pipeline reads texts of any length"):
        found.conditioning  # noqa: B018 - which is found when it is asked for


def test_a_prompt_that_becomes_a_list_is_refused():
    made = MADE["z-image-omni"]()
    for each in ("transformer", "vae", "text_encoder", "siglip"):
        getattr(made, each).to("meta")
    with pytest.raises(UnsupportedError, match="ZImageOmniPipeline encodes each prompt to a list of tensors"):
        surveyed(made, {}, "classifier_free", 32, 32, 2).conditioning  # noqa: B018 - which is found when it is asked for


def test_pictures_that_are_enlarged_come_as_small_as_what_is_asked_for_needs():
    made = BESIDE["stable-diffusion-x4-upscaler"]()
    for name in ("unet", "vae", "text_encoder"):
        getattr(made, name).to("meta")
    found = surveyed(made, {}, "classifier_free", 32, 64, 2)
    assert (found.enlarges, found.image, found.latent) == (4, (32, 64, 3), (4, 8, 16))
    assert found.noises == [(1, 3, 8, 16), (1, 4, 8, 16)]  # of the picture itself, before the latent's


def test_pictures_that_are_enlarged_by_no_whole_number_are_refused():
    survey = SimpleNamespace(
        name="OddPipeline", pictures={"image": "image"}, image=(48, 32, 3),
        called=lambda _: {"height": 32, "width": 32},
    )  # fmt: skip
    survey.pipeline = BESIDE["stable-diffusion-x4-upscaler"]()
    with pytest.raises(UnsupportedError, match=r"OddPipeline draws 1\.5 and 1 times the height and width of its pictures"):
        surveying._enlarges(survey)


def test_a_picture_that_the_text_encoder_sees_has_the_size_that_the_pipeline_gives_it():
    made = MADE["qwenimage-edit-pictured"]()
    for each in ("transformer", "vae", "text_encoder"):
        getattr(made, each).to("meta")
    found = surveyed(made, {}, "classifier_free", 64, 96, 2)
    assert (found.pictures, found.seen) == ({"image": "image"}, ["image"])
    about = found.prepared["image"]
    assert (about.sides, about.preprocessing.resize, about.preprocessing.resample) == ((832, 1248), "stretch", "lanczos")
    assert found.components["text"] == ["text_encoder"]
    tokens = found.encodings[0].tokens[0].seen.makers[0].tokens
    assert all(reading.before.count("<|image_pad|>") == tokens for reading in found.readings.values())
    own = found.open
    assert own["processor_length"].max - own["prompt_embeds_length"].max == 64  # of the template, which is dropped
    assert own["processor_length"].max == own["negative_processor_length"].max


def test_a_picture_that_is_seen_smaller_than_it_is_drawn_is_one_input_and_the_call_takes_one():
    made = MADE["qwenimage-edit-plus-pictured"]()
    for each in ("transformer", "vae", "text_encoder"):
        getattr(made, each).to("meta")
    found = surveyed(made, {}, "classifier_free", 64, 96, 2)
    assert (found.pictures, found.seen, found.lone) == ({"image": "image"}, ["image"], True)
    assert found.prepared["image"].sides == (832, 1248)
    assert {port: view.sides for port, view in found.views["image"].items()} == {"image_seen": (320, 480)}
    tokens = found.encodings[0].tokens[0].seen.makers[0].tokens
    assert all(reading.before.count("<|image_pad|>") == tokens for reading in found.readings.values())
    assert {reading.pictures for reading in found.readings.values()} == {("<|image_pad|>", "<|video_pad|>")}


def test_an_argument_may_be_a_list_of_as_many_pictures_as_a_recipe_says():
    made = MADE["qwenimage-edit-plus-pictured"]()
    for each in ("transformer", "vae", "text_encoder"):
        getattr(made, each).to("meta")
    found = surveyed(made, {}, "classifier_free", 64, 64, 2, lists={"image": 2})
    assert (found.pictures, found.seen) == ({"image": "image", "image_2": "image"}, ["image", "image_2"])
    assert {name: list(each) for name, each in found.views.items()} == {"image": ["image_seen"], "image_2": ["image_2_seen"]}
    once = found.encodings[0].tokens[0].seen.makers[0].tokens
    assert all(reading.before.count("<|image_pad|>") == 2 * once for reading in found.readings.values())
    shapes = SimpleNamespace(height=(64, 64, 64), width=(64, 64, 64), batch=(1, 1, 1))
    (crossing,) = crossings.conditions(found, shapes, 16).crossings
    assert crossing.shape[0] == 2 * (1024 // 32) ** 2 * 1  # tokens of 2 × 2 cells, of either


def test_a_list_of_pictures_is_shown_to_a_pipeline_that_draws_without_any():
    made = MADE["flux2-klein"]()
    for each in ("transformer", "vae", "text_encoder"):
        getattr(made, each).to("meta")
    assert surveyed(made, {}, "classifier_free", 64, 64, 2).pictures == {}
    found = surveyed(made, {}, "classifier_free", 64, 64, 2, lists={"image": 3})
    assert list(found.pictures) == ["image", "image_2", "image_3"]


def test_what_puts_back_what_its_mask_keeps_beside_conditions_is_refused():
    made = BESIDE["flux-fill"]()
    for network in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        getattr(made, network).to("meta")
    assert surveyed(made, {}, "embedded", 32, 32, 2).fills

    def put_back(pipeline, _index, time, values):
        return {"latents": pipeline.scheduler.scale_noise(values["latents"], time[None], values["latents"])}

    with pytest.raises(UnsupportedError, match="FluxFillPipeline puts back what its mask keeps after every step"):
        surveyed(made, {"callback_on_step_end": put_back}, "embedded", 32, 32, 2)
