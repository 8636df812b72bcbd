"""The race of a UNet's graphs: rounds are interleaved, and lines are times of the first."""

import numpy as np

from engines.lora.layers import LoraLayers
from engines.lora.stacking import LoraTarget
from tests.engines.lora.networks import LAYERS, LIMITS
from tools.measure import lora_network


def test_rounds_are_interleaved_and_the_first_does_not_count():
    order = []
    medians = lora_network.race({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert order == list("ababab")
    assert set(medians) == {"a", "b"}


def test_lines_are_times_of_the_first():
    first, second = lora_network.lines({"base": (2.0, 4.0), "1 LoRA": (2.2, 4.2)})
    assert "1.00 ×" in first
    assert second.split() == ["1", "LoRA", "2.200", "s", "1.10", "×", "4.200", "CPU", "s", "1.05", "×"]


def test_made_up_loras_have_the_largest_rank():
    target = LoraTarget.of("unet", LIMITS, LoraLayers(layers=LAYERS))
    assert lora_network.made_up(target, 0) == {}
    arrays = lora_network.made_up(target, 2)
    assert arrays["lora_a_0"].shape == (4, 16)
    assert np.all(arrays["lora_scale"] == 1)
