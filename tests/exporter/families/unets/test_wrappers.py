"""The glue around networks, written out: branches, guidance, sizes, scaling, ranges."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import LatentConsistencyModelPipeline
from torch import nn

from exporter.families.unets import wrappers
from exporter.recipe.sampling import GuidanceOptions

FREE, EMBEDDED = (GuidanceOptions(mode=mode, scale=3.0) for mode in ("classifier_free", "embedded"))


class Unet(nn.Module):
    """Answers with the sum of its text, and notes what it was asked."""

    dtype = torch.float32

    def __init__(self, time_cond_proj_dim=None):
        super().__init__()
        self.config, self.asked = {"time_cond_proj_dim": time_cond_proj_dim}, {}

    def forward(self, sample, timestep, **asked):
        self.asked = {"latent": sample, "timestep": timestep, **asked}
        return (sample + asked["encoder_hidden_states"].sum((1, 2)).reshape(-1, 1, 1, 1),)


LATENT, TIME = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([9.0, 7.0])


def states(branches, channels=3):
    return torch.arange(2.0 * branches).reshape(2, branches, 1, 1).expand(2, branches, 1, channels) / channels


def test_guidance_mixes_negative_and_positive():
    unet = Unet()
    found = wrappers.Denoiser(unet, FREE)(LATENT, TIME, states(2), torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(found, LATENT + torch.tensor([1.0, 2 + 3 * (3 - 2)]).reshape(2, 1, 1, 1))
    torch.testing.assert_close(unet.asked["latent"], LATENT.repeat_interleave(2, 0))
    assert unet.asked["timestep"].tolist() == [9, 9, 7, 7]
    assert unet.asked["timestep_cond"] is None


def test_one_branch_is_the_network_itself():
    found = wrappers.Denoiser(Unet(), FREE)(LATENT, TIME, states(1))
    torch.testing.assert_close(found, LATENT + torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1))


@pytest.mark.parametrize("width", [8, 9])
def test_embedded_guidance_is_that_of_lcm(width):
    unet, scale = Unet(width), torch.tensor([1.0, 7.5])
    wrappers.Denoiser(unet, EMBEDDED)(LATENT, TIME, states(1), scale)
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scale - 1, width)
    torch.testing.assert_close(unet.asked["timestep_cond"], theirs, rtol=1e-4, atol=1e-4)
    wrappers.Denoiser(unet, FREE)(LATENT, TIME, states(1))
    torch.testing.assert_close(unet.asked["timestep_cond"], wrappers.sinusoid(torch.zeros(2), width))


def test_xl_reads_the_picture_s_size_off_the_latent():
    unet, pooled = Unet(), torch.arange(8.0).reshape(2, 2, 2)
    wrappers.DenoiserXL(unet, FREE, factor=8)(LATENT, TIME, states(2), states(2, 5), pooled, torch.ones(2))
    added = unet.asked["added_cond_kwargs"]
    assert added["time_ids"].tolist() == [[24, 40, 0, 0, 24, 40]] * 4
    torch.testing.assert_close(added["text_embeds"], pooled.reshape(4, 2))
    assert unet.asked["encoder_hidden_states"].shape == (4, 1, 8)


class Vae(nn.Module):
    """Decodes channels 0 to 2, encodes into a distribution of deviation a half."""

    dtype = torch.float32

    def __init__(self, **config):
        super().__init__()
        self.config = SimpleNamespace(**{"scaling_factor": 0.5, "latents_mean": None, "latents_std": None} | config)
        self.encoder = self.decoder = self.quant_conv = self.post_quant_conv = nn.Identity()

    def decode(self, latent, *, return_dict):
        assert not return_dict
        return (latent[:, :3],)

    def encode(self, image, *, return_dict):
        assert not return_dict
        return (SimpleNamespace(mean=image.double(), std=torch.full_like(image, 0.5).double()),)


MOMENTS = {"latents_mean": [1.0, 2.0, 3.0], "latents_std": [2.0, 4.0, 8.0]}


@pytest.mark.parametrize("config", [{}, MOMENTS, {"latents_mean": [1.0, 2.0, 3.0]}], ids=["plain", "moments", "mean alone"])
def test_encoder_and_decoder_undo_each_other(config):
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.rand(1, 2, 2, 3, generator=generator), torch.randn(1, 3, 2, 2, generator=generator)
    latent = wrappers.Encoder(Vae(**config))(image, noise)
    drawn = image.permute(0, 3, 1, 2) * 2 - 1 + 0.5 * noise
    whole = len(config) == 2
    own = [torch.tensor(MOMENTS[f"latents_{name}"]).reshape(1, 3, 1, 1) for name in ("mean", "std")] if whole else [0.0, 1.0]
    mean, std = own
    torch.testing.assert_close(latent, ((drawn - mean) / std * 0.5).float(), rtol=1e-4, atol=1e-5)
    decoder = wrappers.Decoder(Vae(**config))
    torch.testing.assert_close(decoder.train()(latent), (drawn / 2 + 0.5).permute(0, 2, 3, 1), rtol=1e-3, atol=1e-4)
    pictures = [decoder.eval()(latent * scale) for scale in (100, -100)]
    assert (min(float(each.min()) for each in pictures), max(float(each.max()) for each in pictures)) == (0, 1)
    assert decoder.vae.encoder is None


def test_a_tiny_encoder_has_no_distribution():
    class Tiny(Vae):
        def encode(self, image, *, return_dict):
            assert not return_dict
            return (image * 3,)

    image = torch.rand(1, 2, 2, 3)
    found = wrappers.TinyEncoder(Tiny())(image)
    torch.testing.assert_close(found, (image.permute(0, 3, 1, 2) * 2 - 1) * 3 * 0.5)


def test_another_decoder_undoes_the_source_s_scaling():
    source, other = Vae(scaling_factor=0.25), Vae(scaling_factor=4.0, **MOMENTS)
    wrappers.transplant(source, "vae_decoder", other)
    unscaled = torch.rand(1, 3, 2, 2)
    mean, std = (torch.tensor(MOMENTS[f"latents_{name}"]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(source.decoder(unscaled), unscaled * 0.25 * std / 4 + mean)
    assert source.post_quant_conv is None
    wrappers.transplant(source, "vae_encoder", other)
    assert source.encoder is other.encoder
    assert np.isclose(source.config.scaling_factor, 0.25)
