"""LoRAs side by side: each takes its ranks, an unused rank is zero, and layers that none changes share one array."""

import numpy as np

from engines.lora.layers import LoraLayers
from engines.lora.stacking import LoraTarget, scaled, stacked
from tests.engines.lora.networks import LAYERS, LIMITS, random

TARGET = LoraTarget.of("unet", LIMITS, LoraLayers(layers=LAYERS))


def pair(layer, rank):
    return random(rank, *layer.shape[1:]), random(layer.shape[0], rank)


def test_ranks_stand_side_by_side():
    first, second = ({LAYERS[0].name: pair(LAYERS[0], rank)} for rank in (3, 6))
    arrays = stacked(TARGET, [first, second])
    assert arrays["lora_a_0"].shape == (4, 16)
    assert np.array_equal(arrays["lora_a_0"][:, :3], first[LAYERS[0].name][0].T)
    assert np.array_equal(arrays["lora_b_0"][3:9], second[LAYERS[0].name][1].T)
    assert not arrays["lora_a_0"][:, 9:].any()
    assert arrays["lora_a_2"].shape == (16, 4, 3, 3)
    assert not arrays["lora_a_2"].any()
    scale = scaled(TARGET, [first, second], [(1.0, 2.0), (0.5, 0.0)])["lora_scale"]
    assert scale.tolist() == [[1.0] * 3 + [0.5] * 6 + [0.0] * 7, [2.0] * 3 + [0.0] * 13]


def test_arrays_that_none_changes_are_shared_and_no_array_is_written_to():
    twin = (*LAYERS, LAYERS[0].model_copy(update={"name": "blocks.1.to_q", "index": 3}))
    target = LoraTarget.of("unet", LIMITS, LoraLayers(layers=twin))
    arrays = stacked(target, [{LAYERS[1].name: pair(LAYERS[1], 2)}])
    assert arrays["lora_a_0"] is arrays["lora_a_3"]
    assert not any(array.flags.writeable for array in arrays.values())
    assert all(array.base is not None and array.base.flags.writeable for array in arrays.values())


def test_the_longest_rank_of_a_lora_counts_for_all_of_its_layers():
    own = {LAYERS[0].name: pair(LAYERS[0], 2), LAYERS[1].name: pair(LAYERS[1], 7)}
    scale = scaled(TARGET, [own, {LAYERS[0].name: pair(LAYERS[0], 4)}], [(1.0,), (3.0,)])["lora_scale"]
    assert scale.tolist() == [[1.0] * 7 + [3.0] * 4 + [0.0] * 5]
    assert not stacked(TARGET, [own, {}])["lora_a_0"][:, 2:].any()
