"""Floors by stage and precision class, and the recipe's own in front."""

import pytest

from exporter.recipe import limits


def test_every_stage_has_a_floor_for_every_class_and_they_fall():
    assert limits.LIMITS["caching"] == {}, "what caching costs has no floor but a recipe's own"
    for stage, floors in limits.LIMITS.items():
        if stage == "caching":
            continue
        quantized = set() if stage in {"passes", "table"} else {"int8-weights", "int8", "fp8", "int4-weights"}
        assert set(floors) == {"fp32", "fp16", "bf16"} | quantized, stage
        values = [floors[precision] for precision in limits.COARSENESS if precision in floors]
        assert values == sorted(values, reverse=True), stage


@pytest.mark.parametrize(
    ("precision", "form", "wanted"),
    [
        ("fp32", "", "fp32"), ("fp16", "", "fp16"), ("fp32", "int8", "int8"), ("fp16", "int8-smoothquant", "int8"),
        ("fp32", "int8-hybrid", "int8"), ("fp16", "int8-weights", "int8-weights"), ("bf16", "int8-weights", "bf16"),
        ("fp32", "int4-weights", "int4-weights"), ("fp16", "fp8", "fp8"),
    ],
)  # fmt: skip
def test_a_quantized_graph_is_held_to_its_format(precision, form, wanted):
    assert limits.class_of(precision, form) == wanted


def test_a_part_s_own_limit_stands_before_the_stage_s_and_that_before_ours():
    own = limits.Limits({"engine": 35.0, "unet.engine": 12.5})
    assert own("unet", "engine", "fp32") == {"psnr": 12.5}
    assert own("vae_decoder", "engine", "fp16") == {"psnr": 35.0}
    assert own("unet", "onnx", "bf16") == {"psnr": limits.LIMITS["onnx"]["bf16"]}
    assert limits.Limits({})("unet", "engine", "fp16") == {"psnr": limits.LIMITS["engine"]["fp16"]}


def test_a_remade_network_is_held_to_what_is_said_of_itself_alone():
    own = limits.Limits({"passes": 50.0, "unet.passes": 3.0})
    assert own.of_remade("unet") == {"psnr": 3.0}
    assert own.of_remade("vae_decoder") == {}


def test_every_stage_has_a_line_in_the_table():
    assert set(limits.LIMITS) <= set(limits.STAGES)
    assert len(set(limits.STAGES.values())) == len(limits.STAGES)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_class_is_never_finer_than_the_graph(precision):
    for form in ("", "int8", "int8-weights", "int4-weights", "fp8", "int8-smoothquant"):
        found = limits.class_of(precision, form)
        assert limits.COARSENESS.index(found) >= limits.COARSENESS.index(precision)


def test_caching_has_the_recipes_limit_or_none():
    assert limits.Limits({})("end to end", "caching", "fp32") == {}
    assert limits.Limits({"caching": 25})("end to end", "caching", "fp16") == {"psnr": 25}
