import pytest

from engines.signature import Port
from exporter.families.unets import depths
from exporter.recipe.sampling import CacheOptions

LATENT = Port(name="latent", shape=("batch", 4, "latent_height", "latent_width"))
TEXT = Port(name="prompt_embeds", shape=("batch", "branches", 77, 8))
XL = {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}


def test_text_is_an_input_only_where_the_outermost_layers_have_attention():
    deep = depths.deep_feature({"block_out_channels": [8, 16]}, LATENT, 2)
    assert deep.shape == ("batch", "branches", 8, "latent_height", "latent_width")
    for config, depth, read in (({}, 0, True), (XL, 1, False)):
        found = depths.shallow_inputs(config, [LATENT, TEXT], CacheOptions(every=2, depth=depth), deep)
        assert found == [LATENT, *([TEXT] if read else []), deep]
    sdxs = {**XL, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"]}
    assert [depths.reads_text(sdxs, depth) for depth in (0, 1)] == [False, True]


@pytest.mark.parametrize(
    ("config", "depth", "told"),
    [
        ({}, 1, ""),
        ({}, 2, "depth 2 is deeper than the outermost blocks of this UNet; what fits: 0 to 1"),
        ({"layers_per_block": [1, 2]}, 1, "what fits: 0"),
        ({"up_block_types": ["SimpleCrossAttnUpBlock2D"]}, 0, "SimpleCrossAttnUpBlock2D of this UNet cannot be taken apart"),
    ],
)
def test_a_depth_that_does_not_fit_is_told_with_those_that_do(config, depth, told):
    assert told in depths.problem(config, depth)
    assert bool(depths.problem(config, depth)) == bool(told)
