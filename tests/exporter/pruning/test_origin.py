"""Where a module of a cut network stood: the longest prefix counts, and whole names only."""

import pytest

from exporter.models import architectures
from exporter.passes.prune import Prune
from exporter.pruning.origin import came_from

MOVED = {
    "up_blocks.0.": "up_blocks.1.",
    "up_blocks.0.resnets.1.": "up_blocks.1.resnets.2.",
    "up_blocks.0.attentions.0.transformer_blocks.0.attn1.": "up_blocks.1.attentions.0.transformer_blocks.3.attn2.",
}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("up_blocks.0", "up_blocks.1"),
        ("up_blocks.0.resnets.0.conv1", "up_blocks.1.resnets.0.conv1"),
        ("up_blocks.0.resnets.1", "up_blocks.1.resnets.2"),
        ("up_blocks.0.resnets.1.conv1", "up_blocks.1.resnets.2.conv1"),
        ("up_blocks.0.resnets.10.conv1", "up_blocks.1.resnets.10.conv1"),
        (
            "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k",
            "up_blocks.1.attentions.0.transformer_blocks.3.attn2.to_k",
        ),
        ("up_blocks.01", "up_blocks.01"),
        ("mid_block.resnets.0", "mid_block.resnets.0"),
        ("conv_in", "conv_in"),
    ],
)
def test_a_module_came_from(name, source):
    assert came_from(name, MOVED) == source


def test_where_nothing_moved_a_module_is_itself():
    assert came_from("up_blocks.0.resnets.1", {}) == "up_blocks.0.resnets.1"


def test_layers_that_stayed_learn_from_their_own():
    config = architectures.configs("sdxl-base")["unet"]
    blocks = {"down_blocks.2": {"layers": [1, 8]}, "mid_block": {"layers": [3, 9]}}
    moved = Prune(blocks=blocks).moved(config, {})
    assert came_from("down_blocks.2.attentions.1.transformer_blocks.1.attn1", moved) == (
        "down_blocks.2.attentions.1.transformer_blocks.8.attn1"
    )
    assert came_from("mid_block.attentions.0.transformer_blocks.0.ff", moved) == (
        "mid_block.attentions.0.transformer_blocks.3.ff"
    )
