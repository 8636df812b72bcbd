"""How pipelines keep latents, name what they encode, and are called with stand-ins."""

from types import SimpleNamespace

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from engines.errors import UnsupportedError
from exporter.families.tracing.following import dry_run

LATENT = torch.linspace(-1, 1, 2 * 4 * 8 * 6).reshape(2, 4, 8, 6)


def tokens(latent, patch):
    batch, channels, height, width = latent.shape
    rows = latent.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return rows, batch, (height // patch) * (width // patch)


def flux(latent):
    rows, batch, count = tokens(latent, 2)
    return rows.permute(0, 2, 4, 1, 3, 5).reshape(batch, count, -1)


def channels_last(latent):
    rows, batch, count = tokens(latent, 2)
    return rows.permute(0, 2, 4, 3, 5, 1).reshape(batch, count, -1)


@pytest.mark.parametrize(
    "pack",
    [
        lambda latent: latent,
        lambda latent: latent[:, None],
        flux,
        channels_last,
        lambda latent: latent.flatten(2).transpose(1, 2),
    ],
)
def test_a_latent_is_found_again_however_it_is_kept(pack):
    way, factor = dry_run.packing(LATENT, 0.5 * pack(LATENT), "SomePipeline")
    assert factor == pytest.approx(0.5)
    torch.testing.assert_close(dry_run.unpacked(way, pack(LATENT), LATENT), LATENT)


def test_two_branches_of_one_latent_are_one():
    way, factor = dry_run.packing(LATENT, torch.cat([LATENT, LATENT]), "SomePipeline")
    assert factor == 1
    torch.testing.assert_close(dry_run.unpacked(way, torch.cat([LATENT, LATENT]), LATENT), LATENT)
    torch.testing.assert_close(dry_run.unpacked(way, LATENT, LATENT), LATENT, msg="as without guidance")
    with pytest.raises(UnsupportedError, match="in an order that is not known"):
        dry_run.packing(LATENT, torch.cat([LATENT, LATENT + 1]), "SomePipeline")


def test_an_unknown_order_is_refused():
    with pytest.raises(UnsupportedError, match="in an order that is not known"):
        dry_run.packing(LATENT, LATENT.flip(3), "SomePipeline")
    with pytest.raises(UnsupportedError, match=r"keeps its latent .* as list"):
        dry_run.packing(LATENT, [LATENT], "SomePipeline")


def test_names_are_those_of_the_return():
    def encode(prompt):
        if not prompt:
            return None
        embeds, mask = prompt
        return embeds, mask, embeds + 1

    assert dry_run.names_of(encode, 3) == ["embeds", "mask", "conditioning_2"]
    assert dry_run.names_of(encode, 2) == ["conditioning_0", "conditioning_1"]


def test_a_list_of_one_tensor_a_picture_is_one_leaf():
    rows = [torch.zeros(2), torch.zeros(3)]
    assert dry_run.leaves((rows, torch.zeros(1), None), 2)[0][0] is rows
    assert len(dry_run.leaves((rows, torch.zeros(1), None), 3)[0]) == 4


def test_what_networks_return_of_several_things_is_noted_as_it_is():
    class Listing(torch.nn.Module):
        def forward(self, value):
            return Transformer2DModelOutput(sample=[value, value])

    network, seen = Listing(), {}
    with dry_run.returning(SimpleNamespace(components={"transformer": network, "tokenizer": None}), seen):
        network(torch.ones(2))
    found = seen["transformer"]
    assert isinstance(found, Transformer2DModelOutput)
    assert [type(each) for each in found[0]] == [dry_run.Absent] * 2
    assert len(found.sample) == 2


@pytest.mark.parametrize("noise", [(2, 4, 8, 6), (2, 1, 4, 8, 6), (2, 4, 1, 8, 6), (2, 1, 4, 1, 8, 6)])
def test_axes_of_one_picture_or_frame_are_none_of_a_latent(noise):
    assert dry_run.flat(noise, "It") == (4, 8, 6)


@pytest.mark.parametrize("noise", [(2, 4), (2, 48, 4), (2, 3, 4, 8, 6)])
def test_noise_of_anything_else_is_refused(noise):
    with pytest.raises(UnsupportedError, match="It draws noise of"):
        dry_run.flat(noise, "It")


def test_a_latent_of_one_channel_or_one_row_has_it():
    assert dry_run.flat((2, 1, 8, 6), "It") == (1, 8, 6)
    assert dry_run.flat((2, 4, 1, 1, 6), "It") == (4, 1, 6)
