"""The family `sdxl` against StableDiffusionXLPipeline: same weights, same inputs, same numbers."""

import pytest
import torch

from exporter.families.sdxl import Sdxl
from tests.exporter import equality, models

CUTS = {
    "koala": {"mid_block_type": None},
    "vega": {
        "mid_block_type": "UNetMidBlock2D",
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, [1, 1], [2, 2]],
        "reverse_transformer_layers_per_block": [[2, 2, 3], [2, 1, 1], 1],
    },
    "lcm": {"time_cond_proj_dim": 17},
}


@pytest.fixture(scope="module", params=["plain", "koala", "vega", "lcm"])
def source(request, tiny_sdxl, tmp_path_factory):
    """SDXL and its cuts; the KOALA-like one with a tiny VAE, the Vega-like one without zeros for the empty prompt."""
    kind = request.param
    if kind == "plain":
        return kind, tiny_sdxl
    decoder = models.tiny_vae() if kind == "koala" else None
    folder = tmp_path_factory.mktemp(kind)
    return kind, models.save_sdxl(folder, network=models.unet_xl(**CUTS[kind]), decoder=decoder, force_zeros=kind != "vega")


@pytest.fixture(scope="module")
def made(source):
    """Family and pipeline of one source, in the guidance mode it was made for."""
    kind, folder = source
    family = equality.family(Sdxl, folder, "embedded" if kind == "lcm" else "classifier_free")
    return family, family.pipeline()


def encode(family, pipeline, prompts, negatives):
    """(prompt_embeds, prompt_embeds_2, pooled) of the parts, for prompts and negatives (None: empty)."""
    rows = [[negative or "", prompt] for prompt, negative in zip(prompts, negatives, strict=True)]
    rows = rows if family.branches == 2 else [row[1:] for row in rows]
    first = family.part("text_encoder", "fp32").module(equality.ids(pipeline.tokenizer, rows))
    return first, *family.part("text_encoder_2", "fp32").module(equality.ids(pipeline.tokenizer_2, rows))


@pytest.mark.parametrize("given", [True, False], ids=["negative", "no_negative"])
def test_text(made, given):
    family, pipeline = made
    guided = family.branches == 2
    negatives = equality.NEGATIVES if given else None
    first, second, pooled = encode(family, pipeline, equality.PROMPTS, negatives or [None, None])
    wanted = pipeline.encode_prompt(equality.PROMPTS, None, "cpu", 1, guided, negatives)
    states = torch.cat([first, second], dim=-1)
    equality.close(states[:, -1], wanted[0])
    equality.close(pooled[:, -1], wanted[2])
    if not guided:
        return
    if given or not pipeline.config.force_zeros_for_empty_prompt:
        equality.close(states[:, 0], wanted[1])
        equality.close(pooled[:, 0], wanted[3])
    else:
        assert torch.equal(states[:, 0], wanted[1])
        assert torch.equal(pooled[:, 0], wanted[3])


def test_an_empty_positive_prompt_is_encoded(tiny_sdxl):
    family = equality.family(Sdxl, tiny_sdxl)
    states, _, pooled = encode(family, family.pipeline(), ["", "red"], ["red", None])
    assert states[0].abs().amin(-1).amin() > 0, "neither an empty positive prompt nor a given negative one becomes zeros"
    assert pooled[0].abs().sum(-1).amin() > 0
    assert not states[1, 0].any()
    assert states[1, 1].any()


@pytest.mark.parametrize("size", [(8, 12), (16, 8)])
def test_denoiser(made, size):
    family, pipeline = made
    part, branches = family.part("unet", "fp32"), family.branches
    latent = equality.latents(height=size[0], width=size[1])
    first = equality.latents(branches, height=77, width=16, seed=1)
    second = equality.latents(branches, height=77, width=24, seed=2)
    pooled = equality.latents(branches, height=1, width=24, seed=3)[:, :, 0]
    times, scale = torch.tensor([999.0, 251.0]), torch.tensor([7.5, 2.0])
    found = part.module(latent, times, first, second, pooled, scale)
    pixels = (4 * size[0], 4 * size[1])
    sizes = pipeline._get_add_time_ids(pixels, (0, 0), pixels, torch.float32, 24)
    for item in range(2):
        condition = None
        if width := pipeline.unet.config.time_cond_proj_dim:
            condition = pipeline.get_guidance_scale_embedding(scale[item : item + 1] - 1, embedding_dim=width)
        one = pipeline.unet(
            latent[item : item + 1].expand(branches, -1, -1, -1),
            times[item],
            encoder_hidden_states=torch.cat([first[item], second[item]], dim=-1),
            timestep_cond=condition,
            added_cond_kwargs={"text_embeds": pooled[item], "time_ids": sizes.repeat(branches, 1)},
            return_dict=False,
        )[0]
        if branches == 2:
            negative, positive = one.chunk(2)
            one = negative + scale[item] * (positive - negative)
        equality.close(found[item : item + 1], one)


def test_decoder(made):
    family, pipeline = made
    latent = equality.latents() * pipeline.vae.config.scaling_factor
    found = family.part("vae_decoder", "fp32").module(latent)
    image = pipeline.vae.decode(latent / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    equality.close(found, torch.from_numpy(pipeline.image_processor.postprocess(image.detach(), output_type="np")))


def test_latent_statistics(tmp_path):
    decoder = models.vae(latents_mean=[0.1, 0.2, -0.3, 0.4], latents_std=[1.0, 2.0, 3.0, 0.5], scaling_factor=0.5)
    family = equality.family(Sdxl, models.save_sdxl(tmp_path / "playground", decoder=decoder), components=("vae_encoder",))
    pipeline, latent = family.pipeline(), equality.latents()
    config = pipeline.vae.config
    mean, std = (torch.tensor(config[f"latents_{name}"]).reshape(1, 4, 1, 1) for name in ("mean", "std"))
    found = family.part("vae_decoder", "fp32").module(latent)
    image = pipeline.vae.decode(latent * std / 0.5 + mean, return_dict=False)[0]
    equality.close(found, torch.from_numpy(pipeline.image_processor.postprocess(image.detach(), output_type="np")))
    back = family.part("vae_encoder", "fp32").module(found, torch.zeros_like(latent))
    encoded = pipeline.vae.encode(found.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean
    equality.close(back, (encoded - mean) * 0.5 / std)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' Euler on numpy 2
def test_a_whole_picture(tiny_sdxl):
    """The pipeline's own loop with the parts in the networks' places: everything between the networks is inside them."""
    family = equality.family(Sdxl, tiny_sdxl)
    pipeline, noise = family.pipeline(), equality.latents(batch=1)
    pipeline.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 32, "width": 48}
    expected = pipeline("the red circle", negative_prompt="blue", latents=noise.clone(), output_type="np", **call).images
    first, second, pooled = encode(family, pipeline, ["the red circle"], ["blue"])
    unet, scheduler = family.part("unet", "fp32").module, family.scheduler()
    scheduler.set_timesteps(3)
    latent, scale = noise * scheduler.init_noise_sigma, torch.tensor([4.0])
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latent, time)
        latent = scheduler.step(unet(scaled, time[None].float(), first, second, pooled, scale), time, latent).prev_sample
    equality.close(family.part("vae_decoder", "fp32").module(latent), torch.from_numpy(expected))


def test_signature(made):
    family, _ = made
    names = ["latent", "timestep", "prompt_embeds", "prompt_embeds_2", "pooled_prompt_embeds", "guidance_scale"]
    assert [port.name for port in family.signature("unet").inputs] == names
    assert family.signature("unet").inputs[4].shape == ("batch", family.branches, 24)
    assert family.signature("text_encoder_2").inputs[0].name == "tokenizer_2_ids"
    assert [port.name for port in family.signature("text_encoder_2").outputs] == ["prompt_embeds_2", "pooled_prompt_embeds"]


def test_second_tokenizer_pads_with_an_exclamation_mark(tiny_sdxl):
    family = equality.family(Sdxl, tiny_sdxl)
    assert family.empty("text_encoder")[2:] == [532] * 75
    assert family.empty("text_encoder_2")[2:] == [0] * 75


def test_half_precision_mixes_no_types_where_onnx_cannot(tiny_sdxl):
    family = equality.family(Sdxl, tiny_sdxl)
    part = family.part("unet", "fp16")
    sizes = {"batch": 2, "latent_height": 8, "latent_width": 12}
    inputs = [torch.zeros(part.signature.shape(port, sizes)) for port in part.signature.inputs]
    joined = []

    class Concat(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.concat:
                joined.append({tensor.dtype for tensor in args[0]})
            return function(*args, **kwargs or {})

    with Concat():
        output = part.module(*inputs)
    assert output.dtype == torch.float32
    assert output.isfinite().all()
    assert joined
    assert all(len(types) == 1 for types in joined)


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_export_keeps_every_size_dynamic(tiny_sdxl, precision):
    family = equality.family(Sdxl, tiny_sdxl)
    part = family.part("unet", precision)
    batch, height, width = (torch.export.Dim(name, min=1, max=4) for name in ("batch", "height", "width"))
    dims = {"batch": batch, "latent_height": 4 * height, "latent_width": 4 * width}
    example = {"batch": 2, "latent_height": 8, "latent_width": 12}
    inputs = tuple(torch.zeros(part.signature.shape(port, example)) for port in part.signature.inputs)
    shapes = tuple({axis: dims[dim] for axis, dim in enumerate(port.shape) if dim in dims} for port in part.signature.inputs)
    program = torch.export.export(part.module, inputs, dynamic_shapes=shapes, strict=False).module()
    other = {"batch": 1, "latent_height": 16, "latent_width": 8}
    inputs = [torch.rand(part.signature.shape(port, other)) for port in part.signature.inputs]
    torch.testing.assert_close(program(*inputs), part.module(*inputs), rtol=1e-3, atol=1e-3 if precision == "fp16" else 1e-5)
