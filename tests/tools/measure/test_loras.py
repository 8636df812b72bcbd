"""The race of LoRAs: every racer in every round, medians, and files of the rank that was asked for."""

from safetensors.numpy import load_file

from tests.engines.lora.networks import LAYERS
from tools.measure import loras


def test_rounds_are_interleaved_and_the_first_does_not_count():
    order = []
    medians = loras.race({name: lambda name=name: order.append(name) for name in "ab"}, 3)
    assert order == list("abababab")
    assert set(medians) == {"a", "b"}


def test_lines_say_the_ratio_and_what_each_slot_adds():
    told = list(loras.rows({"without inputs": 2.0, "no LoRAs": 2.1, "1 LoRA": 2.3}, "without inputs"))
    assert told == [
        "without inputs: 2.000 s, 1.00 × the base",
        "no LoRAs: 2.100 s, 1.05 × the base, +5.0% of the base",
        "1 LoRA: 2.300 s, 1.15 × the base, +10.0% of the base",
    ]


def test_a_made_up_lora_has_the_rank_that_was_asked_for(tmp_path):
    found = load_file(loras.made(list(LAYERS[:3]), 16, 8, 0, tmp_path))
    ranks = {name: len(value) for name, value in found.items() if name.endswith("lora_A.weight")}
    assert ranks == {
        "unet.blocks.0.to_q.lora_A.weight": 16,
        "unet.blocks.0.proj.lora_A.weight": 16,
        "unet.blocks.0.conv.lora_A.weight": 8,
    }
