"""A UNet without its innermost blocks computes what the outermost ones do from zeros, and can be kept and read again."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from exporter.models import weights
from exporter.models.depth_skip import DepthSkipUNet
from exporter.passes.prune import Prune
from tests.exporter import models
from tests.exporter.pruning.cuts import call, cut


@pytest.fixture(scope="module")
def whole():
    return models.unet(layers_per_block=2)


def from_zeros(unet, depth, latent, time, text):
    """What is left of a whole UNet at a depth, written as the paper has it: a list of input blocks, and one of output blocks."""
    temb = unet.time_embedding(unet.time_proj(torch.full((len(latent),), float(time))))

    def pair(block, index):
        def run(hidden):
            hidden = block.resnets[index](hidden, temb)
            attentions = getattr(block, "attentions", None)
            return attentions[index](hidden, encoder_hidden_states=text, return_dict=False)[0] if attentions else hidden

        return run

    inputs = [unet.conv_in]
    for block in unet.down_blocks:
        inputs += [pair(block, index) for index in range(len(block.resnets))]
        inputs += list(block.downsamplers or ())
    outputs = []
    for block in unet.up_blocks:
        runs = [pair(block, index) for index in range(len(block.resnets))]
        if block.upsamplers:
            last, upsampler = runs[-1], block.upsamplers[0]
            runs[-1] = lambda hidden, last=last, upsampler=upsampler: upsampler(last(hidden))
        outputs += [(run, block.resnets[index]) for index, run in enumerate(runs)]
    skips, hidden = [], latent
    for block in inputs[:depth]:
        hidden = block(hidden)
        skips.append(hidden)
    hidden = None
    for run, resnet in outputs[len(inputs) - depth :]:
        skip = skips.pop()
        if hidden is None:
            hidden = torch.zeros(len(skip), resnet.in_channels - skip.shape[1], *skip.shape[2:])
        hidden = run(torch.cat([hidden, skip], dim=1))
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))


@pytest.mark.parametrize("depth", [3, 4, 5, 6, 9])
def test_what_is_left_runs_from_zeros(whole, depth):
    made = cut(Prune(preset="depth-skip", depth=depth), whole)
    generator = torch.Generator().manual_seed(0)
    latent, text = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 7, 16, generator=generator)
    with torch.no_grad():
        expected = from_zeros(whole, depth, latent, 500, text)
        torch.testing.assert_close(made(latent, torch.tensor(500), text).sample, expected)
        assert not torch.allclose(whole(latent, torch.tensor(500), text).sample, expected, rtol=1e-2)


@pytest.mark.parametrize("depth", [5, 6])
def test_it_is_kept_and_read_again(whole, depth, tmp_path):
    made = cut(Prune(preset="depth-skip", depth=depth), whole)
    made.save_pretrained(tmp_path)
    loaded = DepthSkipUNet.from_pretrained(tmp_path).eval()
    assert torch.equal(call(loaded), call(made))
    config = DepthSkipUNet.load_config(tmp_path)
    assert (config["_class_name"], config["depth"]) == ("DepthSkipUNet", depth)
    read = weights.read(weights.skeleton("diffusers", "DepthSkipUNet", config), [*tmp_path.glob("*.safetensors")], "fp32", "unet")
    assert torch.equal(call(read), call(made))


@pytest.mark.parametrize(("depth", "size"), [(4, 16), (8, 18), (9, 16)])
def test_what_a_controlnet_adds_to_blocks_that_are_gone_is_discarded(whole, depth, size):
    made = cut(Prune(preset="depth-skip", depth=depth), whole)
    generator = torch.Generator().manual_seed(1)
    latent, text = torch.randn(1, 4, size, size, generator=generator), torch.randn(1, 7, 16, generator=generator)
    skips = residuals(whole, latent, text)
    with torch.no_grad():
        plain = made(latent, torch.tensor(9), text).sample
        zero = [torch.zeros_like(each) for each in skips]
        mid = torch.full_like(skips[-1], torch.nan)
        given = {"mid_block_additional_residual": mid}
        assert torch.equal(made(latent, torch.tensor(9), text, down_block_additional_residuals=zero, **given).sample, plain)
        zero[depth:] = [torch.full_like(each, torch.nan) for each in zero[depth:]]
        assert torch.equal(made(latent, torch.tensor(9), text, down_block_additional_residuals=zero, **given).sample, plain)
        zero[depth - 1] = torch.ones_like(zero[depth - 1])
        assert not torch.equal(made(latent, torch.tensor(9), text, down_block_additional_residuals=zero, **given).sample, plain)


def residuals(whole, latent, text):
    """A whole UNet's skips, from the outermost, whose shapes a ControlNet's residuals have."""
    found = []

    def see(_module, _args, given):
        found.insert(0, given["res_hidden_states_tuple"])

    hooks = [block.register_forward_pre_hook(see, with_kwargs=True) for block in whole.up_blocks]
    with torch.no_grad():
        whole(latent, torch.tensor(9), text)
    for hook in hooks:
        hook.remove()
    return [each for skips in found for each in skips]


def test_classes_of_the_upscaler_and_channels_of_pix2pix_stay():
    whole = models.unet(in_channels=8, layers_per_block=2, num_class_embeds=5, only_cross_attention=[True, True, False])
    made = cut(Prune(preset="depth-skip", depth=6), whole)
    with torch.no_grad():
        ones = [made(torch.ones(1, 8, 16, 16), 9, torch.ones(1, 7, 16), class_labels=torch.tensor([n])).sample for n in (0, 3)]
    assert not torch.equal(*ones)


@pytest.mark.parametrize("depth", [None, 0, 10, True, 2.0])
def test_a_depth_that_the_network_has_not(whole, depth):
    config = {**whole.config, "_class_name": "DepthSkipUNet", "depth": depth}
    with pytest.raises(ValueError, match=r"depth must be a whole number from 1 to 9, the input blocks of this network, not"):
        DepthSkipUNet.from_config(config)


def test_it_is_a_network_of_diffusers():
    assert issubclass(weights.named("diffusers", "DepthSkipUNet"), UNet2DConditionModel)
