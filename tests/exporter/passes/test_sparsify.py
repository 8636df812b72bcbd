"""Two weights in four are zero, the largest stay, and a target that cannot use it is refused before the build."""

import pytest
import torch
from torch import nn

from engines.errors import UnsupportedError
from exporter.families.sdxl import Sdxl
from exporter.passes.sparsify import Sparsify
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from tests.exporter import equality

RECIPE = """
model: {source: SOURCE}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
components: {unet: {passes: [sparsify: {pattern: "2:4"}]}}
targets: [TARGET]
"""


def test_the_two_largest_of_four_stay(tiny_sdxl):
    before = equality.family(Sdxl, tiny_sdxl).part("unet", "fp32").network
    part = Sparsify()(equality.family(Sdxl, tiny_sdxl).part("unet", "fp32"))
    zeros = 0
    for (name, layer), old in zip(part.network.named_modules(), before.modules(), strict=True):
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        if name in {"conv_in", "conv_out"} or "_embedding." in name or layer.weight.shape[1] % 4:
            assert torch.equal(layer.weight, old.weight), name
            continue
        own, was = (each.weight.movedim(1, -1).reshape(-1, 4) for each in (layer, old))
        assert ((own == 0).sum(1) == 2).all(), name
        assert torch.equal(own[own != 0], was[own != 0])
        least = torch.where(own != 0, was.abs(), torch.inf).min(1).values
        assert (torch.where(own == 0, was.abs(), 0).max(1).values <= least).all()
        zeros += (own == 0).sum().item()
    assert dict(part.metadata)["sparsify"]["zeros"] == zeros > 1000
    assert f"zeroes {zeros:,} of" in part.notes[-1]


def test_what_is_kept_is_the_users(tiny_sdxl):
    with pytest.raises(UnsupportedError, match="no layer is left"):
        Sparsify(keep=("*",))(equality.family(Sdxl, tiny_sdxl).part("unet", "fp32"))


@pytest.mark.parametrize(
    ("target", "pattern", "told"),
    [
        ("onnxruntime", "2:4", "onnxruntime: ONNX Runtime has no kernels that skip zeros"),
        ("tensorrt_rtx", "2:4", "makes the same engine, byte for byte"),
        ("tensorrt", "2:4", "if its option sparse_weights is true"),
        ("tensorrt: {sparse_weights: true}", "unstructured", "in the pattern 2:4 alone"),
    ],
)
def test_where_no_target_can_use_it(tiny_sdxl, target, pattern, told):
    text = RECIPE.replace("SOURCE", str(tiny_sdxl)).replace("TARGET", target).replace("2:4", pattern)
    with pytest.raises(UnsupportedError, match=r"none of its targets can use it") as caught:
        Plan(Recipe.parse(text, "sparse")).refuse()
    assert told in str(caught.value)


def test_one_target_that_can_is_enough(tiny_sdxl):
    text = RECIPE.replace("SOURCE", str(tiny_sdxl)).replace("TARGET", "onnxruntime, tensorrt: {sparse_weights: true}")
    plan = Plan(Recipe.parse(text, "sparse"))
    plan.refuse()
    assert plan.passes.summaries("unet")[0] == "sparsify: 2:4"
