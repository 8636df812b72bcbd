"""A config whose fields hold something else than can be computed with is told with component and field."""

import json
import math
import shutil

import pytest

from engines.errors import UnsupportedError
from exporter.models import architectures, config_types
from exporter.models.resolve import resolve
from exporter.recipe.schema import LoraOptions, ModelOptions


@pytest.mark.parametrize(
    ("component", "field", "value"),
    [
        ("vae", "in_channels", "trailing"),
        ("vae", "scaling_factor", math.nan),
        ("vae_decoder", "latent_channels", True),
        ("unet", "out_channels", [[1], [2]]),
        ("unet", "block_out_channels", []),
        ("unet", "cross_attention_dim", [0]),
        ("unet", "down_block_types", "DownBlock2D"),
        ("unet", "in_channels", 10**400),
        ("text_encoder", "hidden_size", "a\0b"),
        ("text_encoder", "num_hidden_layers", {"": []}),
        ("text_encoder", "architectures", 3),
        ("text_encoder_2", "max_position_embeddings", 1),
        ("tokenizer", "model_max_length", -1),
        ("tokenizer_2", "model_max_length", "\ud800"),
        ("scheduler", "_class_name", [4, 8]),
    ],
)
def test_what_cannot_be_computed_with(component, field, value):
    with pytest.raises(UnsupportedError, match=f"x: {component}: {field} must be ") as caught:
        config_types.refuse_types(component, {field: value}, "x")
    assert str(caught.value).encode()


def test_null_is_none_where_a_library_takes_it_so():
    config_types.refuse_types("vae", {"decoder_block_out_channels": None, "shift_factor": None}, "x")


@pytest.mark.parametrize("name", architectures.names())
def test_configs_as_published_pass(name):
    for component, config in architectures.configs(name).items():
        config_types.refuse_types(component, config, name)


def test_a_tokenizer_without_limit_passes():
    config_types.refuse_types("tokenizer", {"model_max_length": 10**30}, "x")
    config_types.refuse_types("tokenizer", {"model_max_length": 1e30}, "x")


@pytest.mark.parametrize("entry", [[], [-1], ["diffusers", False], ["diffusers", "A", "B"]])
def test_an_index_names_library_and_class(tiny_sd, tmp_path, entry):
    folder = shutil.copytree(tiny_sd, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": entry}))
    with pytest.raises(UnsupportedError, match=r"model_index\.json: scheduler must be its library and class"):
        resolve(ModelOptions(source=str(folder)), tmp_path)


@pytest.mark.parametrize("said", ["{", "[]", "3", '{"lora_alpha": "x"}', '{"lora_alpha": 1, "alpha_pattern": {"(": 1}}'])
def test_what_a_trainer_wrote_of_alpha_is_read_or_told(tiny_sd, tmp_path, said):
    import numpy as np
    from safetensors.numpy import save_file

    ends = {"lora_A.weight": (4, 16), "lora_B.weight": (16, 4)}
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{name}.{end}": np.ones(shape, np.float32) for end, shape in ends.items()}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"lora_adapter_metadata": said})
    with pytest.raises(UnsupportedError, match="wrote of alpha and rank"):
        resolve(ModelOptions(source=str(tiny_sd), loras=[LoraOptions(source=str(tmp_path / "x.safetensors"))]), tmp_path)
