"""A UNet with an IP-Adapter's layers: those that diffusers gives it."""

import pytest
import torch
from safetensors.torch import save_file

from engines.errors import UnsupportedError
from exporter.models import ip_adapter_weights, safetensors_header
from exporter.models.ip_adapter import IpAdapter
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions
from tools.coverage import prompted, unets


def adapter(file, state):
    save_file(state, file)
    return IpAdapter(file, safetensors_header.header(file).shapes)


@pytest.mark.parametrize("plus", [False, True], ids=["plain", "plus"])
def test_it_has_the_weights_that_diffusers_gives_it_and_on_the_meta_device_their_shapes(tmp_path, plus):
    made = unets.stable_diffusion()
    made.save_pretrained(tmp_path / "base")
    asked = prompted.write_ip_adapter(tmp_path / "adapter", prompted.ip_adapter(made.unet, plus=plus))
    model = ModelOptions.model_validate({"source": str(tmp_path / "base"), "ip_adapter": asked})
    checkpoint = resolve(model, tmp_path)
    made.load_ip_adapter(asked["source"], subfolder="models", weight_name=asked["weight_name"])
    wanted, own = made.unet.state_dict(), checkpoint.module("unet")
    assert own.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in own.state_dict().items())
    assert not own.training
    assert not any(each.requires_grad for each in own.parameters())
    half = checkpoint.module("unet", "fp16").state_dict()
    assert {each.dtype for each in half.values()} == {torch.float16}
    outlined = checkpoint.skeleton("unet").state_dict()
    assert {name: value.shape for name, value in outlined.items()} == {name: value.shape for name, value in wanted.items()}
    assert all(value.is_meta for value in outlined.values())


def test_an_adapter_of_another_unet_is_told_by_its_layers(tmp_path):
    unet = unets.unet()
    state = prompted.ip_adapter(unet)
    layers = [name for name in state if name.endswith(".to_k_ip.weight")]
    less = {name: value for name, value in state.items() if not name.startswith(layers[-1].partition(".to_")[0])}
    told = rf"is an IP-Adapter of another UNet: this one reads text in {len(layers)} layers, and of the adapter's it has "
    with pytest.raises(UnsupportedError, match=told + str(len(layers) - 1)):
        ip_adapter_weights.adapted(unet, adapter(tmp_path / "less.safetensors", less))
    wide = {**state, layers[0]: torch.zeros(24, 32)}
    with pytest.raises(UnsupportedError, match=rf"{layers[0]} is 24 wide, and 16 fit"):
        ip_adapter_weights.adapted(unet, adapter(tmp_path / "wide.safetensors", wide))


def test_what_is_not_finite_is_told(tmp_path):
    unet = unets.unet()
    state = prompted.ip_adapter(unet)
    state["image_proj.norm.bias"][0] = torch.nan
    with pytest.raises(UnsupportedError, match=r"image_proj\.norm\.bias holds NaN or infinity"):
        ip_adapter_weights.adapted(unet, adapter(tmp_path / "nan.safetensors", state))


def test_the_scale_is_that_of_every_layer(tmp_path):
    unet = unets.unet()
    ip_adapter_weights.adapted(unet, adapter(tmp_path / "it.safetensors", prompted.ip_adapter(unet)))
    ip_adapter_weights.set_scale(unet, 0.25)
    scales = [each.scale for each in unet.attn_processors.values() if hasattr(each, "scale")]
    assert scales
    assert all(each == [0.25] for each in scales)
