"""The config of a UNet that sees groups of tokens, and the networks that have none to group."""

import pytest

from engines.errors import UnsupportedError
from exporter.passes.prune import Prune
from exporter.pruning.grouping import grouped
from tests.exporter import models


def test_the_config_is_the_networks_and_says_which_groups():
    source = dict(models.unet().config)
    found = grouped(source, "a pass", merge=2, regions=1, levels=3)
    assert found["_class_name"] == "GroupedAttentionUNet"
    assert found["grouped_attention"] == {"merge": 2, "regions": 1, "levels": 3}
    assert {name: value for name, value in found.items() if name in source and name[0] != "_"} == {
        name: value for name, value in source.items() if name[0] != "_"
    }


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (lambda: models.unet_xl().config, r"levels 3 is too many, 2 of its 3 resolutions have attention.\n  Take 2."),
        (lambda: {"_class_name": "FluxTransformer2DModel"}, "a pass knows UNet2DConditionModel alone, and this network is Flux"),
        (lambda: Prune(preset="depth-skip", depth=3).config(models.unet().config), "this network is DepthSkipUNet"),
    ],
    ids=["levels", "transformer", "skipped"],
)
def test_a_network_that_has_no_such_attention(source, told):
    with pytest.raises(UnsupportedError, match=told):
        grouped(source(), "a pass", merge=2, regions=1, levels=3)
