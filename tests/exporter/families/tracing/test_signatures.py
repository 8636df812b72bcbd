"""Ports of the parts of a followed pipeline; what pictures add to them is in test_traced."""

from exporter.families.tracing import signatures
from tests.exporter.families.test_traced import family


def test_the_contract_is_read_off_the_pipeline(model):
    made = family(model("pixart-sigma"))
    assert dict(made.roles) == {"text_encoder": "text", "transformer": "denoiser", "vae_decoder": "decoder"}
    text, denoiser, decoder = (made.signature(name) for name in made.roles)
    assert [(port.name, port.shape) for port in text.inputs] == [
        ("tokenizer_ids", ("batch", 2, 300)),
        ("tokenizer_mask", ("batch", 2, 300)),
    ]
    assert [port.name for port in denoiser.inputs][:2] == ["latent", "timestep"]
    assert {port.name for port in text.outputs} == {
        "prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask",
    }  # fmt: skip
    assert {port.name for port in text.outputs} < {port.name for port in denoiser.inputs}
    assert denoiser.inputs[-1].name == "guidance_scale"
    assert decoder.outputs[0].shape == ("batch", "2*latent_height", "2*latent_width", 3)
    assert (denoiser.dims["batch"].max, text.dims["batch"].max, denoiser.dims["latent_width"].multiple) == (2, 1, 8)
    assert made.driving.pipeline == "PixArtSigmaPipeline"
    entry, _ = made.tokenizers()["tokenizer"]
    assert (entry.length, entry.mask, entry.shown(" A Cat ")) == (300, "tokenizer_mask", "a cat")


def test_a_picture_has_as_many_pixels_as_cells_where_a_cell_is_a_pixel():
    assert signatures.pixels(1) == ("latent_height", "latent_width")
    assert signatures.pixels(8) == ("8*latent_height", "8*latent_width")
