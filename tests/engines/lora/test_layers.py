"""Ports of layers, and a contract extended by them."""

import numpy as np
import pytest
from pydantic import ValidationError

from engines.errors import BundleError
from engines.lora.layers import LoraLayer, LoraLayers, LoraLimits, extended, listed, rounded
from engines.signature import Port, Range, Signature
from tests.engines.lora.networks import LAYERS, LIMITS


def test_ports_are_as_each_form_takes_them():
    shapes = [[port.shape for port in layer.ports(LIMITS)] for layer in LAYERS[:3]]
    assert shapes[0] == [(4, "lora_rank"), ("lora_rank", 6)]
    assert shapes[1] == [("lora_rank", 4), (5, "lora_rank")]
    assert shapes[2] == [(16, 4, 3, 3), (3, 16, 1, 1)]
    assert [layer.form for layer in LAYERS] == ["rows", "pixels", "convolution", "convolution"]


def test_what_nobody_feeds_rests_at_zero():
    base = Signature(
        inputs=(Port(name="latent", shape=("batch", 4)),),
        outputs=(Port(name="out", shape=("batch", 4)),),
        dims={"batch": Range(min=1, typical=1, max=3)},
    )
    wide = extended(base, LAYERS, LIMITS)
    assert wide.dims["lora_rank"] == Range(min=8, typical=8, max=16, multiple=8)
    assert wide.needed == ["latent"]
    assert wide.shared == {f"lora_{side}_{index}" for side in "ab" for index in range(3)}
    filled = wide.filled({"latent": np.ones((3, 4), np.float32)})
    assert wide.sizes(filled) == {"batch": 3, "lora_rank": 8}
    assert not any(filled[port.name].any() for port in wide.inputs if port.optional)
    assert filled["lora_a_0"] is wide.filled({"latent": np.ones((3, 4), np.float32)})["lora_a_0"]
    assert base.filled(given := {"latent": np.ones((1, 4), np.float32)}) is given


def test_a_damaged_list_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="share a name or ports"):
        LoraLayers(layers=(LAYERS[0], LAYERS[1].model_copy(update={"index": 0})))
    with pytest.raises(ValidationError):
        LoraLayer(name="a", spelled=("a",), shape=(4,))
    with pytest.raises(ValidationError):
        LoraLimits(slots=1, max_rank=12, conv_rank=0)
    (tmp_path / "x.json").write_text('{"layers": 3}')
    with pytest.raises(BundleError):
        LoraLayers.load(tmp_path / "x.json")


def test_lengths_and_lists():
    assert [rounded(rank) for rank in (0, 1, 8, 9)] == [8, 8, 8, 16]
    assert listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"
