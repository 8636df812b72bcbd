"""Weights go into a module strictly, or are made up from a seed and a name."""

import hashlib

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models import modeling_utils
from safetensors.torch import save_file
from torch import nn

from engines.errors import UnsupportedError
from exporter.models import weights
from tools.coverage.parts import qwen_vl

BLOCKS = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.norm = nn.Linear(4, 3), nn.LayerNorm(3)
        self.register_buffer("position_ids", torch.arange(5).expand(1, -1), persistent=False)


def empty():
    with torch.device("meta"):
        return Network()


def state(**changes):
    made = {"to_q.weight": torch.arange(12.0).reshape(3, 4), "to_q.bias": torch.ones(3)}
    return made | {"norm.weight": torch.ones(3), "norm.bias": torch.zeros(3)} | changes


def put(tensors, precision="fp32"):
    return weights.put(empty(), {name: lambda value=value: value for name, value in tensors.items()}, precision, "unet")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_every_weight_finds_its_place(tmp_path, precision):
    save_file(state(), tmp_path / "a.safetensors")
    made = weights.read(empty(), [tmp_path / "a.safetensors"], precision, "unet")
    assert torch.equal(made.to_q.weight, state()["to_q.weight"].to(weights.DTYPES[precision]))
    assert made.norm.weight.dtype == weights.DTYPES[precision]
    assert made.position_ids.tolist() == [[0, 1, 2, 3, 4]], "what is not in the file is computed"
    assert not made.training
    assert not any(value.requires_grad for value in made.parameters())


def test_old_spellings_and_harmless_buffers():
    old = {name.replace("to_q.", "block.query."): value for name, value in state().items()}
    assert weights._spelling("mid.query.weight", {"mid.to_q.weight": 0}) == "mid.to_q.weight"
    assert weights._spelling("text_model.x", {"x": 0}) == "x"
    assert weights._spelling("x", {"text_model.x": 0}) == "text_model.x"
    put(state(**{"embeddings.position_ids": torch.arange(5)}))
    with pytest.raises(UnsupportedError, match="unet: weights and config do not belong together"):
        put(old)


class Borrower(nn.Module):
    def __init__(self):
        super().__init__()
        self.own, self.embedder, self.kept, self.other = nn.Linear(2, 2), None, None, None

    @classmethod
    def from_lender(cls, made, lender):
        made.embedder = lender.embedder
        made.kept = lender.count
        return made


def test_what_another_network_lends_is_read_where_it_belongs():
    def read(*names):
        tensors = {f"own.{name}": torch.ones(*shape) for name, shape in (("weight", (2, 2)), ("bias", (2,)))}
        tensors |= {name: torch.ones(3) for name in names}
        return weights.put(Borrower(), {name: lambda value=value: value for name, value in tensors.items()}, "fp32", "controlnet")

    assert read("embedder.weight", "embedder.bias").embedder is None
    for name in ("other.weight", "kept", "embedders.weight", "own.extra"):
        with pytest.raises(UnsupportedError, match=f"1 weights in the file have no place in the model: {name}"):
            read("embedder.weight", name)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        (
            {"to_q.weight": None},
            r"1 weights are missing from the file: to_q\.weight\n  The file is not whole, or .*\n  Down",
        ),
        (
            {"extra": torch.ones(1)},
            "1 weights in the file have no place in the model: extra\n  The weights are of another",
        ),
        (
            {"to_q.bias": torch.ones(3, dtype=torch.int8)},
            r"'to_q\.bias' is of whole numbers \(int8\), which mean nothing without",
        ),
        ({"to_q.bias": torch.ones(4)}, r"unet: 'to_q\.bias' is \[4\] in the file and \[3\] in the model"),
        ({"to_q.bias": torch.tensor([1.0, np.nan, np.inf])}, r"'to_q\.bias' has 2 values that are NaN or infinite in fp32"),
    ],
)
def test_what_does_not_fit_is_named(tensors, told):
    with pytest.raises(UnsupportedError, match=told):
        put({name: value for name, value in state(**tensors).items() if value is not None})


def test_what_half_precision_does_not_hold_is_told_and_a_sum_that_overflows_is_none():
    with pytest.raises(UnsupportedError, match=r"1 values that are NaN or infinite in fp16.*\n.*need fp32 or bf16"):
        put(state(**{"to_q.bias": torch.tensor([1e5, 0.0, 0.0])}), "fp16")
    put(state(**{"to_q.bias": torch.tensor([3e38, 3e38, 0.0])}))
    large = Network()
    large.to_q.bias.data[0] = 1e5
    with pytest.raises(UnsupportedError, match="in fp16"):
        weights.cast(large, "fp16", "unet")
    assert weights.cast(large, "bf16", "unet").to_q.bias.dtype == torch.bfloat16


def test_a_type_is_changed_without_a_word(monkeypatch):
    network = UNet2DModel(sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, **BLOCKS)
    said = []
    monkeypatch.setattr(modeling_utils.logger, "warning", lambda text, *_: said.append(text))
    network.to(torch.float16)
    assert said  # by diffusers' own method
    said.clear()
    assert {value.dtype for value in weights.cast(network, "fp32", "unet").parameters()} == {torch.float32}
    assert not said


def test_a_name_in_two_files_and_a_damaged_file(tmp_path):
    for name in ("a", "b"):
        save_file({"to_q.bias": torch.ones(3)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(UnsupportedError, match=r"unet: 'to_q\.bias' stands in two files, one of them .*b\.safetensors"):
        weights.read(empty(), [tmp_path / "a.safetensors", tmp_path / "b.safetensors"], "fp32", "unet")
    (tmp_path / "c.safetensors").write_bytes(b"12345678901234567890")
    with pytest.raises(UnsupportedError, match=r"c\.safetensors is not a whole safetensors file"):
        weights.opened(tmp_path / "c.safetensors")


def test_made_up_weights_follow_from_seed_and_name_by_hand():
    made = weights.make_up(empty(), 7, "fp32", "unet")
    bits = np.random.SFC64(int.from_bytes(hashlib.sha256(b"7/unet/to_q.weight").digest()[:16], "little"))
    raw = bits.random_raw(3).view(np.int16).astype(np.float32)
    want = raw.reshape(3, 4) * np.float32(np.sqrt(3 / 4) / 2**15)
    np.testing.assert_allclose(made.to_q.weight.numpy(), want, rtol=1e-6)
    assert made.to_q.bias.tolist() == [0, 0, 0]
    assert made.norm.weight.tolist() == [1, 1, 1]
    half = weights.make_up(empty(), 7, "fp16", "unet")
    assert torch.equal(half.to_q.weight, made.to_q.weight.half()), "the same, rounded"
    for other in (weights.make_up(empty(), 8, "fp32", "unet"), weights.make_up(empty(), 7, "fp32", "vae")):
        assert not torch.equal(other.to_q.weight, made.to_q.weight)


def test_made_up_weights_keep_activations_their_size(monkeypatch):
    filled = weights.fill(torch.empty(50, 400), "0/x/weight")
    assert float(filled.var()) == pytest.approx(1 / 400, rel=0.02)
    assert abs(float(filled.mean())) < 1e-3
    monkeypatch.setattr(weights, "_CHUNK", 64)  # a multiple of four, as the stream is drawn
    assert torch.equal(weights.fill(torch.empty(50, 400), "0/x/weight"), filled)


@pytest.mark.parametrize(
    ("library", "name", "config", "told"),
    [
        ("diffusers", "NoSuchModel", {}, "diffusers .* has no network named 'NoSuchModel'"),
        ("transformers", "CLIPTokenizer", {}, "has no network named 'CLIPTokenizer'"),
        ("diffusers", "UNet2DConditionModel", {"down_block_types": ["Odd"]}, "UNet2DConditionModel refuses its config"),
    ],
)
def test_a_network_that_cannot_be(library, name, config, told):
    with pytest.raises(UnsupportedError, match=told):
        weights.skeleton(library, name, config)


def test_weights_of_transformers_are_found_under_the_names_that_its_files_have(tmp_path):
    source = qwen_vl("Qwen2_5_VL")
    source.save_pretrained(tmp_path)
    made = weights.skeleton("transformers", type(source).__name__, source.config.to_dict(), computed=True)
    names = weights.opened(tmp_path / "model.safetensors")
    assert "visual.patch_embed.proj.weight" in names  # and the network says `model.visual…`
    weights.read(made, [tmp_path / "model.safetensors"], "fp32", "text_encoder")
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in source.state_dict().items())
