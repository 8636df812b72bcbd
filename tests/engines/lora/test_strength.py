"""Alpha and rank as peft writes them."""

import math

import pytest

from engines.errors import UnsupportedError
from engines.lora.strength import config_of, said, strength


def test_alpha_over_rank():
    assert strength("", "unet", "a.to_q", 4) is None
    assert strength('{"r": 4}', "unet", "a.to_q", 4) is None
    assert strength('{"lora_alpha": 8}', "unet", "a.to_q", 0) is None  # no way of changing a weight that has one rank
    assert strength('{"lora_alpha": 8}', "unet", "a.to_q", 4) == 2.0
    assert strength('{"lora_alpha": 8, "use_rslora": true}', "unet", "a.to_q", 4) == 8 / math.sqrt(4)
    assert strength('{"lora_alpha": 8, "alpha_pattern": {"to_q": 2}}', "unet", "a.to_q", 4) == 0.5
    assert strength('{"unet.lora_alpha": 8, "text_encoder.lora_alpha": 4}', "text_encoder", "x", 4) == 1.0


def test_loha_and_lokr_have_alpha_and_rank_in_peft_s_config_alone():
    assert strength('{"peft_type": "LOHA", "alpha": 8, "r": 4}', "unet", "a.to_q", 0) == 2.0
    patterns = '{"peft_type": "LOKR", "alpha": 8, "r": 4, "rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_q": 6}}'
    assert [strength(patterns, "unet", layer, 0) for layer in ("a.to_q", "a.to_k")] == [3.0, 2.0]


def test_a_component_has_its_own_words():
    assert said('{"unet.use_dora": true, "r": 4}', "unet") == {"use_dora": True}
    assert said('{"unet.use_dora": true, "r": 4}', "text_encoder") == {"r": 4}


def test_where_it_stands(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 3}')
    assert config_of(tmp_path / "adapter_model.safetensors", {}) == '{"lora_alpha": 3}'
    assert config_of(tmp_path / "other.safetensors", {}) == ""
    assert config_of(tmp_path / "other.safetensors", {"lora_adapter_metadata": "{}"}) == "{}"


@pytest.mark.parametrize(
    "text",
    ['{"r": 0}', '{"rank_pattern": 3}', "no", "[]", '{"lora_alpha": "x"}', '{"alpha_pattern": {"(": 1}}', '{"alpha_pattern": 3}'],
)
def test_what_cannot_be_read_is_refused(tmp_path, text):
    with pytest.raises(UnsupportedError, match="what its trainer wrote of alpha and rank"):
        config_of(tmp_path / "a.safetensors", {"lora_adapter_metadata": text})
