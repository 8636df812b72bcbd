"""Pipelines that nobody wrote a family for: what a survey finds, and parts that answer as diffusers does."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from engines.errors import RecipeError, UnsupportedError
from engines.tokenizer import TextTokenizer
from exporter.families import claim
from exporter.families.traced import Traced
from exporter.models.resolve import resolve
from exporter.onnx.capture import traced
from exporter.parity.metrics import psnr
from exporter.part import Case
from exporter.recipe.schema import Recipe, Shapes
from exporter.reference.cost import count
from exporter.reference.part_outputs import measure
from exporter.reference.record import record
from exporter.stages.plan import Plan
from tests.exporter import equality
from tools.coverage import conditioned, readers

MODES = {
    "classifier_free": "{mode: classifier_free, scale: 4.0}",
    "embedded": "{mode: embedded, scale: 3.5}",
    "none": "{mode: none}",
}
RECIPE = """
model: {source: %s}
sampler: {steps: [2], guidance: %s}
shapes: {height: [32, 32, 32], width: [32, 32, 48], batch: [1, 1, 2]}
checks: {prompts: [A red circle, the blue square], negative_prompt: Blurry}
"""


def family(source: Path, mode: str = "classifier_free", *, text: str = RECIPE) -> Traced:
    recipe = Recipe.parse(text % (source, MODES[mode]), "micro")
    found = claim(resolve(recipe.model, Path()), recipe)
    assert isinstance(found, Traced)
    return found


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("pixart-sigma", "classifier_free"),
        ("flux-guided", "embedded"),
        ("qwenimage", "classifier_free"),
        ("z-image", "classifier_free"),
        ("z-image", "none"),
        ("ernie-image", "classifier_free"),
        pytest.param("ernie-image", "none", marks=pytest.mark.long),
        ("longcat-image", "classifier_free"),
        ("lumina", "classifier_free"),
        ("lumina2", "classifier_free"),
        pytest.param("hunyuan-pag", "classifier_free", marks=pytest.mark.long),
        pytest.param("nucleusmoe-image", "classifier_free", marks=pytest.mark.long),
        ("stable-diffusion-pag", "classifier_free"),
        ("stable-diffusion-controlnet", "classifier_free"),
        ("stable-diffusion-inpaint", "classifier_free"),
        ("instruct-pix2pix", "classifier_free"),
        ("stable-diffusion-adapter", "classifier_free"),
        ("flux-control", "embedded"),
        ("stable-diffusion-controlnets", "classifier_free"),
        ("if", "classifier_free"),
        ("stable-diffusion-x4-upscaler", "classifier_free"),
    ],
)
def test_every_part_answers_as_diffusers_with_guidance_on_and_off(model, name, mode):
    made = family(model(name), mode)
    recording = record(made, made.recipe)
    assert len(recording.runs[1].setting.prompts) == 2
    assert {run.image.shape[1:3] for run in recording.runs} == {(32, 32), (32, 48)}
    switched = any(scale.off is not None for scale in made.guidance.scales[:1])
    assert switched == (mode == "classifier_free" and name != "hunyuan-pag")
    assert any(run.setting.guidance_scale == made.survey.off for run in recording.runs) == switched
    assert made.survey.off == (0.0 if name == "z-image" else 1.0)
    for part in made.roles:
        cases = recording.cases[part]
        for case in measure(made.part(part, "fp32"), cases):
            for port, wanted in case.source.items():
                whole = wanted.dtype == np.int64 or port == "noise_level_condition"
                assert whole or wanted.std() > 1e-4, "a dead network proves nothing"
                error = np.linalg.norm(case.passes[port] - wanted) / np.linalg.norm(wanted)
                assert error < equality.ROUNDING, f"{part}, {case.label}: {port} {error:.1e}"


@pytest.mark.parametrize("name", ["ernie-image", "longcat-image"])
@pytest.mark.parametrize("negative", ["", "Blurry 'ed' lue"])
def test_the_bundle_s_tokenizers_read_as_the_pipeline_joins_its_ids(model, tmp_path, name, negative):
    made, prompt = family(model(name)), "the blue 'lue' red"
    wanted = made.reference().tokenize([prompt], negative)
    for each, (entry, text) in made.tokenizers().items():
        (tmp_path / f"{each}.json").write_text(text)
        texts = {"negative": [negative], "prompt": [prompt]}.get(str(entry.open.branch), []) if entry.open else [negative, prompt]
        read = TextTokenizer.of(tmp_path / f"{each}.json", entry).encode(texts)
        assert np.array_equal(read.ids, wanted[entry.feeds][0])
        assert not entry.mask or np.array_equal(read.mask, wanted[entry.mask][0])


def test_a_model_that_writes_prompts_anew_is_left_out_and_said(tmp_path):
    made = readers.ernie_image()
    config = transformers.Ministral3Config(
        vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8,
    )  # fmt: skip
    writer = {"pe": transformers.Ministral3ForCausalLM(config), "pe_tokenizer": made.tokenizer}
    type(made)(**{**made.components, **writer}).save_pretrained(tmp_path)
    found = family(tmp_path)
    anew, longest = found.notes
    assert anew.startswith("left out: use_pe of ErnieImagePipeline, by which a language model writes prompts anew")
    assert "first 1024 ids" in longest
    assert not {"pe", "pe_tokenizer"} & {name for part in found.roles for name in found.components(part)}
    with pytest.raises(RecipeError, match=r"model.call.use_pe: is off in a bundle, which draws the prompt that it is given"):
        family(tmp_path, text=RECIPE.replace("%s}", "%s, call: {use_pe: true}}", 1))


@pytest.mark.long
@pytest.mark.parametrize(("name", "seen"), [("qwenimage-edit", ""), ("qwenimage-edit-plus", "image_seen")])
def test_a_text_encoder_that_sees_the_picture_answers_as_diffusers_does(model, name, seen):
    text = RECIPE.replace("[32, 32, 32]", "[64, 64, 64]").replace("[32, 32, 48]", "[64, 64, 96]")
    made = family(model(f"{name}-pictured"), text=text.replace("batch: [1, 1, 2]", "batch: [1, 1, 1]") if seen else text)
    assert (made.inputs["image"].shape, list(made.inputs)) == (("batch", 1024, 1024, 3), ["image"])
    taken = {name: made.signature(name).port(port) for name, port in (("text_encoder", seen or "image"), ("condition", "image"))}
    assert taken["condition"] == made.inputs["image"].port("image")
    assert taken["text_encoder"] == made.inputs["image"].taken("image")[seen or "image"].port(seen or "image")
    cases = record(made, made.recipe).cases
    one, other = cases["text_encoder"][:2]  # of one prompt, which two pictures have
    assert np.array_equal(one.inputs["processor_ids"], other.inputs["processor_ids"])
    assert np.linalg.norm(one.source["prompt_embeds"] - other.source["prompt_embeds"]) > 0.01
    for part in ("text_encoder", "condition", "transformer"):
        for case in measure(made.part(part, "fp32"), cases[part][:3]):
            for port, wanted in case.source.items():
                error = np.linalg.norm(case.passes[port] - wanted) / np.linalg.norm(wanted)
                assert error < equality.ROUNDING, f"{part}, {case.label}: {port} {error:.1e}"


def test_own_times_reach_a_pipeline_whose_call_takes_none(model):
    sampler = "sampler: {scheduler: EulerDiscreteScheduler, timesteps: {power: 2}, steps: [3, 2]"
    made = family(model("instruct-pix2pix"), text=RECIPE.replace("sampler: {steps: [2]", sampler))
    runs = record(made, made.recipe).runs
    assert {run.setting.steps: run.times.tolist() for run in runs} == {3: [999, 443, 110], 2: [999, 249]}


def test_a_processor_is_the_bundle_s_tokenizer_with_its_chat_for_a_frame(model):
    made = family(model("flux2"), "embedded")
    assert [(port.name, port.shape) for port in made.signature("text_encoder").inputs] == [
        ("tokenizer_ids", ("batch", 1, 512)),
        ("tokenizer_mask", ("batch", 1, 512)),
    ]
    entry, _ = made.tokenizers()["tokenizer"]
    assert entry.before.startswith("<bos>[SYSTEM]You are an AI")
    assert (entry.before[-15:], entry.after) == ("[/SYSTEM][INST]", "[/INST]")
    assert not any("tokenizer" in note for note in made.notes)


def test_the_pipeline_s_own_shift_is_the_scheduler_s_and_has_a_table_per_size(model):
    made = family(model("flux"), "none")
    times = made.times(4, 32, 32)
    assert times["sigmas"] == [1.0, 0.75, 0.5, 0.25]
    assert times["mu"] < made.times(4, 64, 64)["mu"]
    assert made.sized
    assert made.driving.begins
    text = RECIPE.replace("guidance", "config: {use_dynamic_shifting: false}, guidance")
    assert not family(model("flux"), "none", text=text).sized


def test_a_mode_of_guidance_that_the_pipeline_has_not_is_a_problem_with_its_line(model):
    with pytest.raises(RecipeError, match="'embedded', but FluxPipeline does not use a guidance scale with this model"):
        family(model("flux"), "embedded")
    with pytest.raises(RecipeError, match="'none', but FluxPipeline hands guidance_scale to its network"):
        family(model("flux-guided"), "none")


def test_a_size_that_the_pipeline_rounds_is_a_problem(model):
    with pytest.raises(RecipeError, match=r"shapes.height: 33 px, of which PixArtSigmaPipeline makes 32; write that"):
        family(model("pixart-sigma"), text=RECIPE.replace("height: [32, 32, 32]", "height: [33, 33, 33]"))


def test_a_component_that_is_none_of_its_parts_is_a_problem(model):
    with pytest.raises(RecipeError, match=r"components\.unet: this model has none"):
        family(model("pixart-sigma"), text=RECIPE + "components: {unet: {precision: fp16}}\n")
    with pytest.raises(
        RecipeError, match=r"text_encoder_2: this model has none of its own: it plays within one of text_encoder, tr"
    ):
        family(model("flux"), text=RECIPE + "components: {text_encoder_2: {precision: fp16}}\n")


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("stable-diffusion-controlnet", "fp16"),
        pytest.param("stable-diffusion-adapter", "bf16", marks=pytest.mark.long),
        pytest.param("stable-diffusion-xl-controlnet", "fp16", marks=pytest.mark.long),
    ],
)
def test_scales_that_are_inputs_leave_a_network_its_number_format(name, precision, model):
    program = traced(family(model(name)).part("unet", precision))
    wide = [
        node.name for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)
        if node.meta["val"].dtype == torch.float32
    ]  # fmt: skip
    assert not wide


def test_a_pipeline_that_diffusers_does_not_know_is_refused_by_name(model, tmp_path):
    source = tmp_path / "later"
    source.mkdir()
    for file in model("pixart-sigma").iterdir():
        (source / file.name).symlink_to(file)
    (source / "model_index.json").unlink()
    index = (model("pixart-sigma") / "model_index.json").read_text()
    (source / "model_index.json").write_text(index.replace("PixArtSigmaPipeline", "PixArtOmegaPipeline"))
    with pytest.raises(UnsupportedError, match="has no pipeline 'PixArtOmegaPipeline'"):
        family(source)


def test_a_pipeline_s_further_scales_are_the_bundle_s(model):
    made = family(model("stable-diffusion-pag"))
    assert [(scale.name, scale.default) for scale in made.guidance.scales] == [("guidance_scale", 4.0), ("pag_scale", 3.0)]
    assert [port.name for port in made.signature("unet").inputs][-2:] == ["guidance_scale", "pag_scale"]


def test_what_a_part_costs_is_counted_without_memory(model):
    made = family(model("pixart-sigma"))
    found = count(made)
    network = made.part("transformer", "fp32").network
    assert found["transformer"].parameters == sum(value.numel() for value in network.parameters())
    assert all(size.multiply_adds > 0 for size in found.values())


@torch.no_grad()
def test_half_precision_is_a_private_matter(model):
    made = family(model("pixart-sigma"))
    part = made.part("transformer", "bf16")
    sizes = part.signature.extent("typical")
    given = [torch.ones(part.signature.shape(port, sizes), dtype=getattr(torch, port.dtype)) for port in part.signature.inputs]
    assert {value.dtype for value in part.network.parameters()} == {torch.bfloat16}
    assert part.module(*given).dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("name", ["flux-guided", "flux-control"])
def test_a_time_and_a_scale_that_the_pipeline_rounds_to_half_precision_are_not(model, name):
    """FLUX's are numbers in the network's format, of which it takes a thousandfold: with random weights 32 dB from float32."""
    made = family(model(name), "embedded")
    single, half = (made.part("transformer", precision) for precision in ("fp32", "fp16"))
    noise, sizes = torch.Generator().manual_seed(3), single.signature.extent("typical")
    given = [torch.randn(single.signature.shape(port, sizes), generator=noise) for port in single.signature.inputs]
    ports = [port.name for port in single.signature.inputs]
    for time, scale in ((751.2, 3.5), (333.3, 3.559)):
        given[ports.index("timestep")], given[ports.index("guidance_scale")] = torch.full((1,), time), torch.full((1,), scale)
        want, found = single.module(*given), half.module(*given)
        assert psnr(found.numpy(), want.numpy()) > 60


def test_what_pictures_give_a_step_is_measured_in_halves_as_it_is_in_float32(model):
    """Z-Image's ControlNet hands over two tensors, the second behind a layer that is modulated by the time."""
    made, found = family(model("z-image-controlnet")), list[dict[str, np.ndarray]]()
    for precision in ("fp32", "fp16"):
        part = made.part("condition", precision)
        (port,) = part.signature.inputs
        shape = part.signature.shape(port, part.signature.extent("typical"))
        pictures = np.random.default_rng(0).random(shape, np.float32)
        (case,) = measure(part, [Case("picture", inputs={port.name: pictures}, source={})])
        found.append(case.passes)
    assert [*found[0]] == [*found[1]] == ["control_image_condition", "control_image_condition_2"]
    assert all(psnr(found[1][name], found[0][name]) > 60 for name in found[0])


def test_pictures_scales_and_noise_of_an_editing_model_are_declared(model):
    made = family(model("instruct-pix2pix"))
    assert {scale.name: (scale.default, scale.off, scale.follows) for scale in made.guidance.scales} == {
        "guidance_scale": (4.0, 1.0, False), "image_guidance_scale": (1.5, 1.0, True),
    }  # fmt: skip
    assert [port.shape for port in made.signature("text_encoder").outputs] == [("batch", 3, 77, 32)]  # of three branches
    assert not made.noise_order
    filled = family(model("stable-diffusion-inpaint"))
    assert {name: (entry.kind, entry.shape[-1]) for name, entry in filled.inputs.items()} == {
        "image": ("image", 3),
        "mask": ("mask", 1),
    }
    assert filled.inputs["mask"].preprocessing.binarize
    assert [port.name for port in filled.signature("condition").inputs] == ["image", "mask", "noise"]
    assert list(filled.noise_order) == [1, 0]  # diffusers draws the latent first


def test_an_upscaler_s_picture_noise_and_level_are_declared(model):
    made = family(model("stable-diffusion-x4-upscaler"))
    assert made.factor == 4
    assert made.inputs["image"].shape == ("batch", "latent_height", "latent_width", 3)  # a quarter of what is drawn
    level = made.inputs["noise_level"]
    assert (level.kind, level.minimum, level.maximum, level.default) == ("integer", 0, 350, 20)
    condition = made.signature("condition")
    assert {port.name: port.shape[1:2] for port in condition.inputs} == {
        "noise_level": (), "image": ("latent_height",), "noise": (3,),
    }  # fmt: skip
    # Noise is added to the picture once, and the level is the UNet's class of both branches.
    assert [(port.name, port.shape[1]) for port in condition.outputs] == [("image_condition", 2), ("noise_level_condition", 2)]
    assert made.signature("unet").port("noise_level") is None
    other = replace(made.checkpoint, configs={**made.checkpoint.configs, "low_res_scheduler": {"beta_start": 0.5}})
    assert other.configs != made.checkpoint.configs
    assert made.replacing(checkpoint=other).digest("unet") != made.digest("unet")


def test_several_controlnets_take_a_picture_each(model):
    made = family(model("stable-diffusion-controlnets"))
    assert list(made.inputs) == ["image", "image_2"]
    condition = made.signature("condition")
    assert [port.name for port in condition.outputs] == ["image_condition", "image_2_condition"]
    assert made.digest("condition") != family(model("stable-diffusion-controlnet")).digest("condition")


def test_a_controlnet_of_another_base_model_is_refused_by_its_name(tmp_path):
    conditioned.stable_diffusion_controlnet(cross_attention_dim=48).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match=r"cannot be followed in controlnet: .*\n.*key = attn\.to_k"):
        family(tmp_path)


@pytest.mark.parametrize("kind", ["StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"])
def test_pipelines_that_start_from_a_picture_have_an_encoder_unasked(tiny_sd, tmp_path, kind):
    shutil.copytree(tiny_sd, tmp_path / "model")
    index = tmp_path / "model" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": kind}))
    recipe = equality.recipe(tmp_path / "model")
    assert claim(resolve(recipe.model, Path()), recipe).roles["vae_encoder"] == "encoder"
    fused = equality.recipe(
        tmp_path / "model", pipeline="fused", shapes=Shapes(height=(32,) * 3, width=(32,) * 3, batch=(1,) * 3)
    )
    assert "vae_encoder" not in claim(resolve(fused.model, Path()), fused).roles
    plain = equality.recipe(tiny_sd)
    assert "vae_encoder" not in claim(resolve(plain.model, Path()), plain).roles


def test_arguments_of_the_pipeline_s_call_are_compiled_in_and_in_the_keys(model):
    text = RECIPE.replace("{source: %s}", "{source: %s, call: {clip_skip: 1}}")
    plain, called = (
        Plan(Recipe.parse(each % (model("stable-diffusion-xl-pag"), MODES["classifier_free"]), "micro"))
        for each in (RECIPE, text)
    )
    own, other = ({" ".join(stage.name): stage.key.digest for stage in each.stages} for each in (plain, called))
    changed = {name for name in own if own[name] != other[name]}
    assert {"record source", "export text_encoder, opset 20", "measure text_encoder"} <= changed
    assert not {name for name in changed if name.startswith(("tokenize", "compile", "process"))}
    ids = torch.randint(0, 500, (1, 2, 77))
    first, second = (each.family.part("text_encoder", "fp32").module(ids, ids)[0] for each in (plain, called))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("asked", ["call: {clip_skip: 1}", "pictures: {image: 2}"])
def test_of_a_family_written_by_hand_the_call_has_no_arguments(tiny_sd, asked):
    text = RECIPE.replace("{source: %s}", f"{{source: %s, {asked}}}") % (tiny_sd, MODES["classifier_free"])
    recipe = Recipe.parse(text, "micro")
    name = asked.replace(": {", ".").partition(":")[0]
    with pytest.raises(RecipeError, match=rf"model\.{name}: is for models whose pipeline of diffusers is followed"):
        claim(resolve(recipe.model, Path()), recipe)
