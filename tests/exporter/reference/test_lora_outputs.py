"""LoRAs in the weights of a network: each item's own, rounded after they were added, and gone afterwards."""

from dataclasses import replace

import numpy as np
import torch

from exporter.part import LORA_SCALES
from exporter.reference.lora_outputs import fused
from tests.exporter.onnx.adapted import part
from tests.exporter.onnx.test_lora_inputs import case

LAYER = "blocks.0.to_q"


def pair(size):
    random = np.random.default_rng(2)
    return {LAYER: (random.standard_normal((2, 16), np.float32), size * random.standard_normal((16, 2), np.float32))}


def test_every_item_has_its_own_and_the_weights_are_put_back():
    whole = part()
    before = {name: value.clone() for name, value in whole.module.state_dict().items()}
    loras = [pair(0.3), pair(-0.1)]
    (found,) = fused(whole, whole, [case(2)], loras, lambda _: [[1.0, 0.0], [0.0, 2.0]])
    assert found.inputs[LORA_SCALES].tolist() == [[1.0, 0.0], [0.0, 2.0]]
    for item, scale in enumerate((1.0, -2.0 / 3)):
        changed = part()
        a, b = loras[0][LAYER]
        changed.network.get_submodule(LAYER).weight += scale * torch.from_numpy(b @ a)
        inputs = (torch.from_numpy(array[item : item + 1]) for array in case(2).inputs.values())
        np.testing.assert_allclose(found.source["model_output"][item], changed.module(*inputs)[0].numpy(), rtol=1e-4, atol=1e-5)
    assert found.passes is found.source or np.array_equal(found.passes["model_output"], found.source["model_output"])
    assert all(torch.equal(value, before[name]) for name, value in whole.module.state_dict().items())


def test_they_are_added_before_anything_is_rounded():
    """A change below half a step of bfloat16 is lost where it is added to rounded weights."""
    whole, made = part(), replace(part(torch.bfloat16), precision="bf16")
    weight = whole.network.get_submodule(LAYER).weight
    a = np.eye(2, 16, dtype=np.float32)
    b = np.zeros((16, 2), np.float32)
    rounded = weight.to(torch.bfloat16).float()
    b[:, :2] = (rounded - weight)[:, :2].numpy() * 0.999
    seen = []
    made.network.get_submodule(LAYER).register_forward_pre_hook(lambda module, _: seen.append(module.weight.float().clone()))
    fused(whole, made, [case(1)], [{LAYER: (a, b)}], lambda _: [[-40.0]])
    wanted = (weight - 40 * torch.from_numpy(b @ a)).to(torch.bfloat16).float()
    assert torch.equal(seen[0], wanted)
