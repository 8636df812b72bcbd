"""The family `sd` against StableDiffusionPipeline: same weights, same inputs, same numbers."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from engines.errors import RecipeError, UnsupportedError
from engines.tokenizer import TextTokenizer
from exporter.families.sd import Sd
from exporter.families.sdxl import Sdxl
from exporter.families.unets.wrappers import Denoiser
from exporter.models.resolve import resolve
from exporter.recipe.schema import GuidanceOptions, SamplerOptions
from tests.exporter import equality, models

PYRAMID = {
    "bk_tiny": {
        "down_block_types": ["CrossAttnDownBlock2D"] * 3,
        "up_block_types": ["CrossAttnUpBlock2D"] * 3,
        "mid_block_type": None,
    },
    "sdxs": {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "mid_block_type": None,
    },
    "lcm": {"time_cond_proj_dim": 32},
}


@pytest.fixture(scope="module", params=["plain", "bk_tiny", "sdxs", "lcm"])
def source(request, tiny_sd, tmp_path_factory):
    """Stable Diffusion and its cuts; SDXS with its tiny VAE."""
    if request.param == "plain":
        return request.param, tiny_sd
    decoder = models.tiny_vae() if request.param == "sdxs" else None
    network = models.unet(**PYRAMID[request.param])
    return request.param, models.save_sd(tmp_path_factory.mktemp(request.param), network=network, decoder=decoder)


@pytest.fixture(scope="module")
def made(source):
    """Family and pipeline of one source, in the guidance mode it was made for."""
    kind, folder = source
    family = equality.family(Sd, folder, "embedded" if kind == "lcm" else "classifier_free", components=("vae_encoder",))
    return family, family.pipeline()


def test_text(made):
    family, pipeline = made
    part = family.part("text_encoder", "fp32")
    prompts = list(zip(equality.NEGATIVES, equality.PROMPTS, strict=True))[: 2 if family.branches == 2 else None]
    rows = [list(pair) if family.branches == 2 else [pair[1]] for pair in prompts]
    found = part.module(equality.ids(pipeline.tokenizer, rows))
    positive, negative = pipeline.encode_prompt(equality.PROMPTS, "cpu", 1, family.branches == 2, equality.NEGATIVES)
    equality.close(found[:, -1], positive)
    if family.branches == 2:
        equality.close(found[:, 0], negative)


@pytest.mark.parametrize("size", [(8, 12), (8, 8)])
def test_denoiser(made, size):
    family, pipeline = made
    part = family.part("unet", "fp32")
    latent, states = (
        equality.latents(height=size[0], width=size[1]),
        equality.latents(family.branches, height=77, width=16, seed=1),
    )
    times, scale = torch.tensor([999.0, 251.0]), torch.tensor([7.5, 2.0])
    found = part.module(latent, times, states, scale)
    for item in range(2):
        condition = None
        if pipeline.unet.config.time_cond_proj_dim:
            condition = pipeline.get_guidance_scale_embedding(scale[item : item + 1] - 1, embedding_dim=32)
        one = pipeline.unet(
            latent[item : item + 1].expand(family.branches, -1, -1, -1),
            times[item],
            encoder_hidden_states=states[item],
            timestep_cond=condition,
            return_dict=False,
        )[0]
        if family.branches == 2:
            negative, positive = one.chunk(2)
            one = negative + scale[item] * (positive - negative)
        equality.close(found[item : item + 1], one)


def test_decoder(made):
    family, pipeline = made
    latent = equality.latents() * pipeline.vae.config.scaling_factor
    found = family.part("vae_decoder", "fp32").module(latent)
    image = pipeline.vae.decode(latent / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    expected = pipeline.image_processor.postprocess(image.detach(), output_type="np")
    equality.close(found, torch.from_numpy(expected))
    assert found.shape == (2, 32, 48, 3)
    assert found.min() >= 0
    assert found.max() <= 1


def test_encoder(made):
    family, pipeline = made
    part = family.part("vae_encoder", "fp32")
    image, noise = torch.rand(2, 32, 48, 3, generator=torch.Generator().manual_seed(0)), equality.latents()
    encoded = pipeline.vae.encode(image.permute(0, 3, 1, 2) * 2 - 1)
    if hasattr(encoded, "latents"):
        assert [port.name for port in part.signature.inputs] == ["image"]
        found, expected = part.module(image), encoded.latents
    else:
        assert [port.name for port in part.signature.inputs] == ["image", "noise"]
        found, expected = part.module(image, noise), encoded.latent_dist.mean + encoded.latent_dist.std * noise
    equality.close(found, expected * pipeline.vae.config.scaling_factor)


def test_signature_speaks_of_multiples(made):
    family, _ = made
    signature = family.signature("unet")
    assert signature.dims["latent_height"].model_dump() == {"min": 8, "typical": 12, "max": 16, "multiple": 4}
    assert signature.dims["batch"].max == 2
    assert [port.name for port in signature.inputs] == ["latent", "timestep", "prompt_embeds", "guidance_scale"]
    assert signature.inputs[2].shape == ("batch", family.branches, 77, 16)
    assert family.signature("vae_decoder").outputs[0].shape == ("batch", "4*latent_height", "4*latent_width", 3)
    assert family.signature("text_encoder").inputs[0].name == "tokenizer_ids"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_stays_inside(tiny_sd, precision):
    family = equality.family(Sd, tiny_sd)
    for name, role in family.roles.items():
        part = family.part(name, precision)
        assert {value.dtype for value in part.module.parameters()} == {torch.float16 if precision == "fp16" else torch.bfloat16}
        sizes = part.signature.extent("min")
        inputs = [
            torch.zeros(part.signature.shape(port, sizes), dtype=getattr(torch, port.dtype)) for port in part.signature.inputs
        ]
        output = part.module(*inputs)
        assert output.dtype == torch.float32, role
        assert output.isfinite().all()


def test_no_guidance_has_no_scale(tiny_sd):
    family = equality.family(Sd, tiny_sd, "none")
    assert [port.name for port in family.signature("unet").inputs] == ["latent", "timestep", "prompt_embeds"]
    found = family.part("unet", "fp32").module(
        equality.latents(), torch.tensor([3.0, 4.0]), equality.latents(1, height=77, width=16)
    )
    assert found.shape == (2, 4, 8, 12)


def test_tokenizer_agrees_with_transformers(tiny_sd, tmp_path):
    family = equality.family(Sd, tiny_sd)
    entry, text = family.tokenizers()["tokenizer"]
    assert (entry.file, entry.length, entry.feeds) == ("tokenizers/tokenizer.json", 77, "tokenizer_ids")
    (tmp_path / "t.json").write_text(text, encoding="utf-8")
    prompts = [
        "", " ", "a red circle", "A RED  Circle\n left of", "naïve café", "日本語 の 絵", "🎈🎈!", "it's 3:45 o'clock",
        "don't, won't", "<|endoftext|> inside", "red " * 120, "ß İ ﬁ", "a\u00a0b\tc", "!", "'s 't",
    ]  # fmt: skip
    found, _, cuts, *_ = TextTokenizer(tmp_path / "t.json", 77).encode(prompts)
    theirs = family.tokenizer("tokenizer")
    expected = theirs(prompts, padding="max_length", max_length=77, truncation=True).input_ids
    np.testing.assert_array_equal(found, expected)
    assert [bool(cut) for cut in cuts] == [len(prompt) > 200 for prompt in prompts]


def test_random_architecture_spells_bytes():
    made = equality.recipe("sd-v1-5", model={"weights": "random"}, shapes={"height": (512,) * 3, "width": (512,) * 3})
    family = Sd(resolve(made.model, Path()), made)
    row = family.empty("text_encoder")
    assert row == [49406, *[49407] * 76]
    assert family.tokenizer("tokenizer")("é!").input_ids[0] == 49406


def test_claims(tiny_sd, tiny_sdxl):
    sd, sdxl = (resolve(equality.recipe(folder).model, folder).configs for folder in (tiny_sd, tiny_sdxl))
    assert Sd.claims(sd)
    assert not Sd.claims(sdxl)
    assert not Sdxl.claims(sd)
    assert not Sd.claims({"model_index": {}})


def test_all_problems_at_once(tiny_sd):
    shapes = {"height": (32, 50, 64), "width": (10, 32, 32)}
    text = equality.problems(Sd, tiny_sd, "embedded", shapes=shapes, components=("vae_decodr", "unet"))
    assert "components.vae_decodr: this model has none; did you mean 'vae_decoder'?" in text
    assert "sampler.guidance.mode: 'embedded', but" in text
    assert "shapes.height: 50 px is not a multiple of 8" in text
    assert "shapes.width: 10 px is not a multiple of 8" in text


def test_classifier_free_is_refused_where_guidance_is_an_input(tmp_path):
    folder = models.save_sd(tmp_path / "lcm", network=models.unet(time_cond_proj_dim=8))
    assert "use embedded" in equality.problems(Sd, folder)


def test_inpainting_is_refused(tmp_path):
    folder = models.save_sd(tmp_path / "inpaint", network=models.unet(in_channels=9))
    with pytest.raises(UnsupportedError, match="inpainting"):
        equality.family(Sd, folder)


def test_pipeline_takes_the_recipes_scheduler(tiny_sd):
    made = equality.recipe(tiny_sd)
    sampler = made.sampler.model_copy(update={"scheduler": "DDIMScheduler", "config": {"timestep_spacing": "trailing"}})
    made = made.model_copy(update={"sampler": sampler})
    family = Sd(resolve(made.model, tiny_sd), made)
    found = family.pipeline().scheduler
    assert type(found).__name__ == "DDIMScheduler"
    assert found.config.timestep_spacing == "trailing"
    assert found.config.beta_end == json.loads((tiny_sd / "scheduler" / "scheduler_config.json").read_text())["beta_end"]
    wrong = made.model_copy(update={"sampler": sampler.model_copy(update={"scheduler": "DDIMSheduler"})})
    with pytest.raises(RecipeError, match="did you mean"):
        Sd(resolve(wrong.model, tiny_sd), wrong).scheduler()


def test_guidance_is_rescaled_as_diffusers_does(tiny_sd):
    plain, rescaled = (
        equality.family(
            Sd,
            tiny_sd,
            sampler=SamplerOptions(steps=(2,), guidance=GuidanceOptions(mode="classifier_free", scale=3.0, rescale=share)),
        )
        for share in (0.0, 0.7)
    )
    states, scale = equality.latents(2, height=77, width=16, seed=1), torch.tensor([7.5, 2.0])
    inputs = (equality.latents(), torch.tensor([999.0, 251.0]), states, scale)
    mixed, found = (family.part("unet", "fp32").module(*inputs) for family in (plain, rescaled))
    positive = plain.part("unet", "fp32").module(*inputs[:3], torch.ones(2))
    equality.close(found, rescale_noise_cfg(mixed, positive, guidance_rescale=0.7))
    assert (found - mixed).norm() > 0.01 * mixed.norm()
    assert "Img2ImgPipeline has none" in equality.problems(
        Sd, tiny_sd, components=("vae_encoder",), sampler=rescaled.recipe.sampler
    )


class Stub(torch.nn.Module):
    """A network of two operators where a UNet is expected."""

    dtype, config = torch.float32, {"time_cond_proj_dim": None}

    def forward(self, sample, timestep, encoder_hidden_states, **_):  # noqa: ARG002 - as the real one's
        return (sample * encoder_hidden_states.mean(),)


def test_rescaling_adds_its_own_operators_and_is_not_there_when_off():
    inputs = (torch.randn(1, 4, 8, 8), torch.zeros(1), torch.randn(1, 2, 3, 5), torch.ones(1))

    def operators(**options):
        program = torch.export.export(Denoiser(Stub(), GuidanceOptions(mode="classifier_free", scale=3.0, **options)), inputs)
        return Counter(str(node.target) for node in program.graph.nodes if node.op == "call_function")

    plain, off, on = operators(), operators(rescale=0.0), operators(rescale=0.7)
    assert off == plain
    assert sum((on - plain).values()) == 14
    assert not plain - on
    assert not any("std" in name or "var" in name for name in on)  # which ONNX would spell out by decomposing the whole network
