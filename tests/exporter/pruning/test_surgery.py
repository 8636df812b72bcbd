"""A cut carries the source's own tensors to their new places, and computes what is left."""

import pytest
import torch

from engines.errors import UnsupportedError
from exporter.passes.prune import Prune
from exporter.pruning.surgery import drawn_anew, outline
from tests.exporter.pruning import cuts
from tests.exporter.pruning.cuts import call, cut


@pytest.fixture
def network():
    return cuts.network()


def test_nothing_dropped_is_the_same_function(network):
    assert torch.equal(call(cut(Prune(blocks={}), network)), call(network))


def test_weights_go_where_bk_sdm_puts_them(network):
    base, tiny = (cut(Prune(preset=f"bk-sdm-{size}"), network) for size in ("base", "tiny"))
    for new, old in (
        (base.up_blocks[1].resnets[1], network.up_blocks[1].resnets[2]),
        (base.up_blocks[1].resnets[0], network.up_blocks[1].resnets[0]),
        (base.down_blocks[1].resnets[0], network.down_blocks[1].resnets[0]),
        (base.mid_block.resnets[1], network.mid_block.resnets[1]),
        (tiny.up_blocks[0].resnets[1], network.up_blocks[1].resnets[2]),
        (tiny.up_blocks[1].resnets[0], network.up_blocks[2].resnets[0]),
        (tiny.down_blocks[1].resnets[0], network.down_blocks[1].resnets[0]),
    ):
        assert torch.equal(new.conv1.weight, old.conv1.weight)
        assert new.conv1.weight.data_ptr() == old.conv1.weight.data_ptr(), "not copied"
    assert torch.equal(tiny.up_blocks[0].upsamplers[0].conv.weight, network.up_blocks[1].upsamplers[0].conv.weight)
    assert tiny.down_blocks[1].downsamplers is None


def silence(layer):
    """Make a transformer layer pass its input on."""
    for linear in (layer.attn1.to_out[0], layer.attn2.to_out[0], layer.ff.net[2]):
        linear.weight.zero_()
        linear.bias.zero_()


@pytest.mark.parametrize(
    "blocks",
    [
        {"down_blocks.1": {"layers": [0, 2]}},
        {"up_blocks.1": {"layers": [[0, 2], [0, 1, 2], [0, 2]]}},
        {"down_blocks.1": {"layers": [[0, 2], [0, 1, 2]]}, "up_blocks.1": {"layers": [0, 2]}},
    ],
)
def test_a_layer_that_does_nothing_can_go(network, blocks):
    with torch.no_grad():
        for block in (network.down_blocks[1], network.up_blocks[1]):
            for attention in block.attentions:
                silence(attention.transformer_blocks[1])
    made = cut(Prune(blocks=blocks), network)
    assert sum(value.numel() for value in made.parameters()) < sum(value.numel() for value in network.parameters())
    assert torch.allclose(call(made), call(network), atol=1e-6)


def test_a_mid_block_and_attentions_that_do_nothing_can_go(network):
    with torch.no_grad():
        for module in (*network.mid_block.attentions, *network.up_blocks[2].attentions):
            module.proj_out.weight.zero_()
            module.proj_out.bias.zero_()
        for resnet in network.mid_block.resnets:
            resnet.conv2.weight.zero_()
            resnet.conv2.bias.zero_()
    made = cut(Prune(blocks={"mid_block": None, "up_blocks.2": {"attention": "none"}}), network)
    assert made.mid_block is None
    assert made.config.up_block_types[2] == "UpBlock2D"
    assert torch.allclose(call(made), call(network), atol=1e-6)


def test_a_mid_block_may_keep_one_resnet(network):
    made = cut(Prune(blocks={"mid_block": {"attention": "none"}}), network)
    assert made.config.mid_block_type == "UNetMidBlock2D"
    assert torch.equal(made.mid_block.resnets[0].conv1.weight, network.mid_block.resnets[0].conv1.weight)


def test_a_pair_that_does_not_fit_its_place_is_refused(network):
    with pytest.raises(UnsupportedError, match=r"up_blocks.1.resnets.1.* must be"):
        cut(Prune(blocks={"down_blocks.1": {"pairs": [0]}, "up_blocks.1": {"pairs": [0, 1]}}), network)


def test_an_outline_takes_no_memory(network):
    made = outline(network, Prune(preset="bk-sdm-small")._cut(network.config))
    assert {value.device.type for value in made.parameters()} == {"meta"}


def test_two_places_of_one_weight_share_nothing(network):
    """Where the text's attention stands in for the layer's own, its weights come twice."""
    made = cut(Prune(blocks={"down_blocks.0": {"attention": "cross"}, "up_blocks.2": {"attention": "cross"}}), network)
    layer = made.down_blocks[0].attentions[0].transformer_blocks[0]
    old = network.down_blocks[0].attentions[0].transformer_blocks[0]
    assert torch.equal(layer.attn1.to_k.weight, old.attn2.to_k.weight)
    assert torch.equal(layer.attn2.to_k.weight, old.attn2.to_k.weight)
    assert layer.attn1.to_k.weight.data_ptr() != layer.attn2.to_k.weight.data_ptr()


def test_a_start_is_drawn_by_its_seed_and_disturbs_no_other(network):
    plan, state = Prune(preset="bk-sdm-small")._cut(network.config), torch.random.get_rng_state()
    one, same, other = (drawn_anew(network, plan, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [each.conv_in.weight for each in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not one.training
    assert not any(parameter.requires_grad for parameter in one.parameters())
