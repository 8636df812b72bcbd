"""A LoRA's change is scale * alpha / rank * B @ A, in the layer that it names, or it is refused."""

import json

import pytest
import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from safetensors.torch import save_file
from torch import nn

from engines.errors import UnsupportedError
from exporter.models.lora import Lora
from exporter.models.lora_fuse import fuse


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.ModuleDict({"to_q": nn.Linear(4, 3), "conv": nn.Conv2d(2, 5, 3)})
        self.norm = nn.LayerNorm(3)


UNET = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "layers_per_block": 1}
RANDOM = torch.Generator().manual_seed(0)
Q = torch.randn(2, 4, generator=RANDOM), torch.randn(3, 2, generator=RANDOM)
CONV = torch.randn(2, 2, 3, 3, generator=RANDOM), torch.randn(5, 2, 1, 1, generator=RANDOM)


def lora(folder, scale=1.0, *, config=None, drop=(), **layers):
    """A file in peft's names; `config` is what peft tells of the UNet's adapter."""
    tensors = {}
    for name, (a, b) in layers.items():
        tensors |= {f"unet.block.{name}.lora_A.weight": a, f"unet.block.{name}.lora_B.weight": b}
    adapter = json.dumps({f"unet.{key}": value for key, value in (config or {}).items()})
    told = {} if config is None else {LORA_ADAPTER_METADATA_KEY: adapter}
    file = folder / f"{len(list(folder.iterdir()))}.safetensors"
    save_file({name: value for name, value in tensors.items() if name not in drop}, file, told)
    return Lora(file, scale, frozenset({"unet"}), "", "", config=told.get(LORA_ADAPTER_METADATA_KEY, ""))


def change(*loras):
    """What becomes of the weights of each layer."""
    network = Network().requires_grad_(requires_grad=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    after = fuse(network, "unet", loras, UNET).state_dict()
    return {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}


def test_products_and_convolutions_by_hand(tmp_path):
    found = change(lora(tmp_path, 0.5, to_q=Q, conv=CONV))
    assert set(found) == {"block.to_q.weight", "block.conv.weight"}
    torch.testing.assert_close(found["block.to_q.weight"], 0.5 * Q[1] @ Q[0], rtol=1e-4, atol=1e-6)
    want = 0.5 * torch.einsum("or,rihw->oihw", CONV[1][:, :, 0, 0], CONV[0])
    torch.testing.assert_close(found["block.conv.weight"], want, rtol=1e-4, atol=1e-6)


def test_two_loras_add_up(tmp_path):
    found = change(lora(tmp_path, 0.5, to_q=Q), lora(tmp_path, -2.0, to_q=(Q[0] + 1, Q[1])))
    want = 0.5 * Q[1] @ Q[0] - 2 * Q[1] @ (Q[0] + 1)
    torch.testing.assert_close(found["block.to_q.weight"], want, rtol=1e-4, atol=1e-5)
    assert change() == {}


@pytest.mark.parametrize(
    ("config", "strength"),
    [
        ({"lora_alpha": 8}, 8 / 2),
        ({"lora_alpha": 8, "use_rslora": True}, 8 / 2**0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"to_q": 3}}, 3 / 2),
        ({"lora_alpha": 8, "alpha_pattern": {"other": 3}}, 8 / 2),
        (None, 1.0),
    ],
)
def test_alpha_is_what_the_file_says(tmp_path, config, strength):
    found = change(lora(tmp_path, config=config, to_q=Q))
    torch.testing.assert_close(found["block.to_q.weight"], strength * Q[1] @ Q[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "more", "told"),
    [
        ({"to_k": Q}, {}, r"2 weights have no place in the model: unet\.block\.to_k\.lora_A\.weight"),
        ({"to_q": Q}, {"drop": ("unet.block.to_q.lora_B.weight",)}, r"unet\.block\.to_q has no up"),
        (
            {"to_q": (Q[0][:, :3].contiguous(), Q[1])},
            {},
            r"has A \[2, 3\] and B \[3, 2\], which do not make the model's weight \[3, 4\]",
        ),
        ({"to_q": (Q[0], Q[1] * float("nan"))}, {}, r"unet\.block\.to_q\.lora_B\.weight has NaN or infinite values"),
        ({"to_q": Q}, {"config": {"lora_alpha": 1, "use_dora": True}}, "has no lora_magnitude_vector, and its config says DoRA"),
    ],
)
def test_what_is_for_another_model(tmp_path, layers, more, told):
    with pytest.raises(UnsupportedError, match=told):
        change(lora(tmp_path, **more, **layers))
