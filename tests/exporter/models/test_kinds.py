"""What a file is by the names in it, and what a model is by its configs; each with a way that works."""

import pytest

from exporter.models import kinds, recognition
from exporter.models.recognition import Outline

U, V = "model.diffusion_model.", "first_stage_model."
UNET = {
    f"{U}input_blocks.0.0.weight": (8, 4, 3, 3),
    f"{U}input_blocks.1.0.in_layers.2.weight": (8, 8, 3, 3),
    f"{U}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 768),
}
VAE = {f"{V}encoder.conv_in.weight": (8, 3, 3, 3), f"{V}decoder.conv_in.weight": (8, 4, 3, 3)}
TEXT = {"cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77)}
WHOLE = UNET | VAE | TEXT


def kind(*names, words=None):
    return kinds.of_file(dict.fromkeys(names, (2,)), words or {})


def test_a_whole_model_and_an_unknown_file_are_of_no_kind():
    assert kinds.of_file(WHOLE, {}) is None
    assert kind("who.knows", "what") is None
    assert kinds.of_file({}, {}) is None


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (UNET, kinds.UNET),
        (VAE, kinds.VAE),
        (TEXT, kinds.TOWER),
        (UNET | TEXT, kinds.NO_VAE),
        (UNET | VAE, kinds.NO_TEXT),
        (VAE | TEXT, kinds.NO_UNET),
        ({f"{V}decoder.conv_in.weight": (8, 4, 3, 3)}, kinds.DECODER),
        ({"decoder.up.0.block.0.x": (2,), "post_quant_conv.weight": (2,)}, kinds.DECODER),
        ({"text_model.embeddings.x": (2,), "vision_model.embeddings.x": (2,)}, kinds.TOWER),
        ({"encoder.mid_block.x": (2,), "decoder.up_blocks.0.x": (2,)}, kinds.VAE),
        ({"text_model.encoder.layers.0.x": (2,)}, kinds.TOWER),
        ({"conditioner.embedders.1.model.x": (2,)}, kinds.TOWER),
        ({"down_blocks.0.x": (2,)}, kinds.UNET),
        ({"embeddings.token_embedding.weight": (9, 4), "encoder.layers.0.x": (2,)}, kinds.TOWER),  # as transformers 5 saves it
        ({name: shape for name, shape in WHOLE.items() if "encoder.conv_in" not in name}, kinds.HALF_VAE),
        ({name: shape for name, shape in WHOLE.items() if "decoder.conv_in" not in name}, kinds.HALF_VAE),
        (WHOLE | {f"{U}input_blocks.0.0.weight": (8, 13, 3, 3), f"{U}out.2.weight": (4, 8, 3, 3)}, kinds.OTHER_INPUTS),
        *(({start + name: shape for name, shape in WHOLE.items()}, kinds.WRAPPED) for start in ("state_dict.", "module.")),
        ({name.replace(U, f"{U}_orig_mod."): shape for name, shape in WHOLE.items()}, kinds.WRAPPED),
    ],
)
def test_a_part_of_a_model_is_called_so(shapes, expected):
    assert kinds.of_file(shapes, {}) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unet.down_blocks.0.to_q.lora_A.weight", kinds.LORA),
        ("lora_unet_x.lora_mid.weight", kinds.LORA),
        ("lycoris_x.hada_w2_b", kinds.LORA),
        ("x.lokr_w1", kinds.LORA),
        ("x.lokr_w2_a", kinds.LORA),
        ("x.oft_blocks", kinds.LORA),
        ("x.dora_scale", kinds.LORA),
        ("emb_params", kinds.EMBEDDING),
        ("<cat>", kinds.EMBEDDING),
        ("*", kinds.EMBEDDING),
        ("clip_g", kinds.EMBEDDING),
        ("model.diffusion_model.input_blocks.1.1.time_mixer.mix_factor", kinds.VIDEO),
        ("down_blocks.0.motion_modules.0.x", kinds.VIDEO),
        ("cond_stage_model.model.audio_branch.x", kinds.AUDIO),
        ("vocoder.conv_pre.weight", kinds.AUDIO),
        ("transformer.single_transformer_blocks.0.x", kinds.TRANSFORMER),
        ("double_layers.0.x", kinds.TRANSFORMER),
        ("controlnet_down_blocks.0.weight", kinds.CONTROL),
        ("input_hint_block.0.weight", kinds.CONTROL),
        ("adapter.body.0.x", kinds.ADAPTER),
        ("body.0.in_conv.weight", kinds.ADAPTER),
        ("3.conv.0.weight", kinds.TINY),
        ("decoder.1.weight", kinds.TINY),
        ("x.weight.quant_state.bitsandbytes__nf4", kinds.PACKED),
        ("x.weight.absmax", kinds.PACKED),
        ("lora_unet_x.diff", kinds.LORA),
        ("lora_te1_x.a1.weight", kinds.LORA),
        ("lycoris_x.w_norm", kinds.LORA),
        ("conv_first.weight", kinds.UPSCALER),
        ("body.0.rdb1.conv1.weight", kinds.UPSCALER),
        ("vision_model.embeddings.x", kinds.IMAGE_TOWER),
        ("lm_head.weight", kinds.LANGUAGE),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", kinds.LANGUAGE),
        ("blocks.0.cross_attn.q.weight", kinds.TRANSFORMER),
        ("transformer_blocks.0.attn1.to_q.weight", kinds.TRANSFORMER),
        ("down_blocks.0.0.channelwise.0.weight", kinds.CASCADE),
        ("768.0.linear.0.weight", kinds.HYPERNETWORK),
        # Names that only begin, or end, like those.
        ("emb_params_2", None),
        ("lora", None),
        ("bodyguard.0.weight", None),
        ("clip_x", None),
    ],
)
def test_one_name_tells_the_kind_of_a_file_without_a_unet(name, expected):
    assert kind("some.other.weight", name) is expected


def test_the_most_particular_mark_counts():
    assert kind("x.lora_down.weight", "x.lora_down.weight.absmax") is kinds.PACKED
    assert kind("body.0.lora_up.weight") is kinds.LORA


@pytest.mark.parametrize(
    ("said", "expected"), [("stable-diffusion-v1/lora", kinds.LORA), ("x/textual-inversion", kinds.EMBEDDING), ("lora", None)]
)
def test_a_file_may_say_itself_what_it_is(said, expected):
    assert kind("anything", words={"modelspec.architecture": said}) is expected
    assert kinds.of_file(WHOLE, {"modelspec.architecture": said}) is None, "a whole model is one whatever it says"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.weight.absmax", kinds.PACKED),
        (f"{U}output_blocks.3.1.time_stack.0.x", kinds.VIDEO),
        ("controlnet_cond_embedding.x", kinds.CONTROL),
        ("encoder_hid_proj.image_embeds.weight", kinds.CLASSES),
        ("add_embedding.image_proj.weight", kinds.CLASSES),
        ("control_model.input_blocks.0.0.weight", None),  # beside a UNet, a ControlNet's weights are left out by name
        ("x.lora_up.weight", None),  # a LoRA beside a model changes it no more than its name says
        ("image_proj.x", None),
    ],
)
def test_beside_a_unet_only_what_changes_it_counts(name, expected):
    assert kinds.of_file({**WHOLE, name: (2,)}, {}) is expected


def outline(channels=4, context=(768,), added=0, out=4):
    return Outline(channels=channels, out=out, context=context, added=added, guided=0, resnets=(), attentions=())


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (outline(), None),
        (outline(context=(2048,), added=2816), None),  # SDXL
        (outline(context=(1024,), added=2816), None),
        (outline(context=(1280,), added=2560), "SDXL's refiner"),
        (outline(context=(1280,), added=2304), "SDXL's refiner"),
        (outline(context=(1280,)), None),
        (outline(context=(1024,), added=1024), "neither text, time nor size"),  # unCLIP
        (outline(channels=9), "an inpainting model"),
        (outline(channels=8), "InstructPix2Pix"),
        (outline(channels=5), "a depth-to-image model"),
        (outline(channels=7), "an upscaling model"),
        (outline(channels=16), "a model with other inputs than text"),
        (outline(channels=16, out=16), None),
    ],
)
def test_an_outline_tells_the_kind(found, name):
    told = kinds.of_outline(found)
    assert (name is None and told is None) or name in told.name


def configs(unet=None, vae=None, **classes):
    towers = {"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"} | classes
    index = {name: ["transformers", value] for name, value in towers.items()}
    return {"unet": unet or {}, "vae": vae or {}, "model_index": index, **{name: {} for name in towers}}


def test_text_to_image_is_of_no_kind():
    assert kinds.of_configs(configs()) is None
    sixteen = {"in_channels": 16, "out_channels": 16}
    assert kinds.of_configs(configs(sixteen, {"latent_channels": 16})) is None
    assert kinds.of_configs(configs(text_encoder_2="CLIPTextModelWithProjection", tokenizer_2="CLIPTokenizerFast")) is None


@pytest.mark.parametrize(
    ("found", "expected", "why"),
    [
        (configs({"in_channels": 9}), kinds.INPAINTING, "the UNet takes 9 channels and gives 4, the VAE has 4"),
        (
            configs(vae={"latent_channels": 16}),
            "a model with other inputs than text",
            "takes 4 channels and gives 4, the VAE has 16",
        ),
        (configs(vae={"in_channels": 1, "out_channels": 1}), kinds.AUDIO, "the VAE takes 1 channels and gives 1"),
        (configs(vae={"out_channels": 6}), kinds.LDM3D, "the VAE takes 3 channels and gives 6"),
        (configs({"num_class_embeds": 0}), kinds.CLASSES, "unet.num_class_embeds is 0"),
        (configs({"class_embed_type": "projection"}), kinds.CLASSES, "unet.class_embed_type is 'projection'"),
        (configs(tokenizer="T5Tokenizer"), kinds.TEXT, "its tokenizer is a T5Tokenizer"),
        (configs(text_encoder_2="T5EncoderModel"), kinds.TEXT, "its text_encoder_2 is a T5EncoderModel"),
    ],
)
def test_configs_tell_the_kind_and_what_told(found, expected, why):
    told, reason = kinds.of_configs(found)
    assert told.name == expected if isinstance(expected, str) else told is expected
    assert reason.endswith(why)


def test_a_sentence_says_what_where_and_what_to_do():
    made = kinds.Kind("a lamp", "Take a torch.")
    assert made.sentence("lamp.bin") == "lamp.bin is a lamp.\n  Take a torch."
    assert made.sentence("lamp.bin", "it has a bulb") == "lamp.bin is a lamp: it has a bulb.\n  Take a torch."


INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "requires_safety_checker": False,
    **{name: ["diffusers", "X"] for name in ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")},
}


REFINES = {"text_encoder": [None, None], "requires_aesthetics_score": True}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, None),
        ({"vae": [None, None]}, "a pipeline without its vae"),
        ({"unet": [None, None], "tokenizer": None}, "a pipeline without its unet and its tokenizer"),
        ({"text_encoder": [None, None]}, "a pipeline without its text_encoder"),
        ({"text_encoder_2": [None, None], "tokenizer_2": None}, "a pipeline without its text_encoder_2 and its tokenizer_2"),
        (REFINES, "SDXL's refiner"),
        ({**REFINES, "_class_name": "StableDiffusionXLImg2ImgPipeline"}, None),  # which only starts from a picture
        ({**REFINES, "_class_name": "StableDiffusionXLImg2ImgPipeline", "vae": [None, None]}, "SDXL's refiner"),
        ({"_class_name": "StableDiffusion3Pipeline", "unet": None}, None),
        ({"_class_name": "FluxPipeline", "unet": None}, None),
        ({"_class_name": ["x", "y"], "unet": None}, None),
    ],
)
def test_an_index_tells_what_a_pipeline_lacks(changes, name):
    found = kinds.of_index({**INDEX, **changes})
    assert (found is None) if name is None else name in found.name


@pytest.mark.parametrize("name", ["sd-v1-5-inpainting", "instruct-pix2pix"])
def test_unets_with_more_channels_that_have_an_architecture_are_built(name):
    found = recognition.known()[name]
    assert kinds.of_outline(found, [found]) is None


def test_a_pipeline_of_three_stages_is_told_by_its_schedulers():
    index = {"_class_name": "UnCLIPPipeline", "decoder_scheduler": ["diffusers", "UnCLIPScheduler"]}
    assert kinds.of_index(index) is None
    found = kinds.of_index({**index, "super_res_scheduler": ["diffusers", "UnCLIPScheduler"]})
    assert found is kinds.KARLO
    assert "three stages" in found.sentence("it")
