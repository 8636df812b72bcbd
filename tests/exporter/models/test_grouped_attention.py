"""Self-attention sees groups of tokens: as loops over regions and squares say it, and kept and read again."""

import itertools

import pytest
import torch

from engines.errors import UnsupportedError
from exporter.models import weights
from exporter.models.grouped_attention import GroupedAttentionUNet
from exporter.pruning.grouping import grouped
from tests.exporter import models
from tests.exporter.pruning.cuts import call


@pytest.fixture(scope="module")
def whole():
    return models.unet(layers_per_block=2)


def made(whole, merge=2, regions=1, levels=1):
    unet = GroupedAttentionUNet.from_config(grouped(whole.config, "a pass", merge=merge, regions=regions, levels=levels)).eval()
    unet.load_state_dict(whole.state_dict())
    return unet


def squares(tokens, side):
    """Means of squares, those at the edge of what there is."""
    height, width = tokens.shape[1:3]
    places = itertools.product(range(0, height, side), range(0, width, side))
    return torch.stack([tokens[:, top : top + side, left : left + side].mean((1, 2)) for top, left in places], 1)


@pytest.mark.parametrize(("size", "merge", "regions"), [((8, 8), 2, 1), ((5, 7), 2, 1), ((8, 12), 4, 2), ((9, 6), 2, 3)])
def test_queries_see_their_region_and_the_means_of_squares(whole, size, merge, regions):
    transformer, plain = made(whole, merge, regions).down_blocks[0].attentions[1], whole.down_blocks[0].attentions[1]
    height, width = size
    tokens = torch.randn(2, height, width, 8, generator=torch.Generator().manual_seed(0))
    attention, before = (each.transformer_blocks[0].attn1 for each in (transformer, plain))
    expected = torch.empty_like(tokens)
    for row, column in itertools.product(range(regions), repeat=2):
        here = (
            slice(row * height // regions, (row + 1) * height // regions),
            slice(column * width // regions, (column + 1) * width // regions),
        )
        own = tokens[:, here[0], here[1]]
        seen = torch.cat([own.flatten(1, 2), squares(tokens, merge)], 1) if regions > 1 else squares(tokens, merge)
        # Of the plain network's layer, called as one that looks elsewhere.
        expected[:, here[0], here[1]] = before(own.flatten(1, 2), encoder_hidden_states=seen).view(own.shape)
    with torch.no_grad():
        transformer(
            torch.zeros(2, 8, *size), encoder_hidden_states=torch.zeros(2, 7, 16), return_dict=False
        )  # which shows the size of the map
        torch.testing.assert_close(attention(tokens.flatten(1, 2)), expected.flatten(1, 2))


def test_squares_of_one_token_change_nothing_and_larger_ones_do(whole):
    assert torch.equal(call(made(whole, merge=1)), call(whole))
    assert not torch.allclose(call(made(whole, merge=2)), call(whole), atol=0.05)


def test_only_the_finest_levels_see_groups(whole):
    def processors(levels):
        unet = made(whole, levels=levels)
        return {name.split(".attentions")[0] for name, each in unet.attn_processors.items() if type(each).__name__ == "_Map"}

    assert processors(1) == {"down_blocks.0", "up_blocks.2"}
    assert processors(2) == {"down_blocks.0", "down_blocks.1", "up_blocks.1", "up_blocks.2"}
    assert processors(3) == processors(2) | {"mid_block"}
    assert all("attn1" in name for name, each in made(whole).attn_processors.items() if type(each).__name__ == "_Map")


def test_a_map_that_does_not_divide_is_told(whole):
    unet = made(whole, regions=3)
    with pytest.raises(UnsupportedError, match=r"a map of 16 x 16 tokens does not divide into 3 x 3"):
        call(unet)


def test_it_is_kept_and_read_again(whole, tmp_path):
    unet = made(whole, 4, 2)
    unet.save_pretrained(tmp_path)
    assert torch.equal(call(GroupedAttentionUNet.from_pretrained(tmp_path).eval()), call(unet))
    config = GroupedAttentionUNet.load_config(tmp_path)
    assert config["_class_name"] == "GroupedAttentionUNet"
    read = weights.read(
        weights.skeleton("diffusers", "GroupedAttentionUNet", config), [*tmp_path.glob("*.safetensors")], "fp32", "unet"
    )
    assert torch.equal(call(read), call(unet))
