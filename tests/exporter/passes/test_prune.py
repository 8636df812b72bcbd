"""A cut network flows through the wrapped denoiser and loads in diffusers; wrong options are refused."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from pydantic import ValidationError

from engines.errors import UnsupportedError
from exporter.families.sdxl import Sdxl
from exporter.passes.distill import Distill
from exporter.passes.prune import Prune
from tests.exporter import equality, models
from tests.exporter.pruning import cuts
from tests.exporter.pruning.cuts import call, cut


@pytest.fixture
def network():
    return cuts.network()


@pytest.mark.parametrize("preset", ["bk-sdm-base", "bk-sdm-small", "bk-sdm-tiny", "sdxs", "sdxs-0.9", "koala-1b", "koala-700m"])
def test_diffusers_loads_what_is_saved(network, preset, tmp_path):
    if preset.startswith("koala"):
        network = models.unet(
            layers_per_block=2,
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            transformer_layers_per_block=[1, 1, 3],
        )
    made = cut(Prune(preset=preset), network)
    made.save_pretrained(tmp_path)
    loaded = UNet2DConditionModel.from_pretrained(tmp_path).eval()
    assert type(made) is UNet2DConditionModel
    assert torch.equal(call(loaded), call(made))
    assert call(made).std() > 1e-3
    fresh = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(tmp_path))
    fresh.load_state_dict(made.state_dict(), strict=True)
    assert not any(parameter.requires_grad for parameter in made.parameters())


def test_random_weights_are_the_shape_alone(tiny_sdxl):
    family, blocks = equality.family(Sdxl, tiny_sdxl), {"mid_block": None}

    def made(**options):
        part, state = family.part("unet", "fp32"), torch.random.get_rng_state()
        found = Prune(blocks=blocks, **options)(part).network.state_dict()
        assert torch.equal(torch.random.get_rng_state(), state)
        return found

    one, same, other = (made(weights="random", seed=seed) for seed in (0, 0, 1))
    kept = made()
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in kept.items()}
    weight = "down_blocks.1.resnets.0.conv1.weight"
    assert torch.equal(one[weight], same[weight])
    assert not torch.equal(one[weight], other[weight])
    assert not torch.equal(one[weight], kept[weight])
    assert Prune(blocks=blocks, weights="random").summary == "prune: a block map, random weights"


def test_it_flows_through_the_wrapped_denoiser(tiny_sdxl):
    part = equality.family(Sdxl, tiny_sdxl).part("unet", "fp32")
    before = sum(value.numel() for value in part.module.parameters())
    made = Prune(blocks={"mid_block": None})(part)
    after = sum(value.numel() for value in made.module.parameters())
    assert after < before
    assert made.notes == (f"unet: prune: a block map keeps {after:,} of {before:,} parameters ({after / before:.1%})",)
    extent = part.signature.extent("typical")
    inputs = [torch.ones(part.signature.shape(port, extent)) for port in part.signature.inputs]
    with torch.no_grad():
        assert made.module(*inputs).shape == inputs[0].shape


@pytest.mark.parametrize("weights", ["kept", "random"])
def test_what_depth_skip_leaves_is_told_and_refused_by_further_passes(tiny_sdxl, weights):
    prune = Prune(preset="depth-skip", depth=3, weights=weights)
    part = equality.family(Sdxl, tiny_sdxl).part("unet", "fp32")
    assert prune.summary == f"prune: depth-skip at depth 3{', random weights' * (weights == 'random')}"
    config = prune.config(part.network.config)
    assert prune(part).notes[0].startswith(f"unet: {prune.summary} keeps ")
    for other in (Prune(preset="sdxs"), Distill(data="scenes", steps=1)):
        with pytest.raises(UnsupportedError, match="knows UNet2DConditionModel alone, and this network is DepthSkipUNet"):
            other.config(config)


@pytest.mark.parametrize("options", [{"preset": "bk-sdm-base"}, {"blocks": {"mid_block": None}}, {"search": {"budget": 0.5}}])
@pytest.mark.parametrize("kind", ["SD3Transformer2DModel", "UNet2DModel", "AutoencoderKL", "CLIPTextModel"])
def test_a_network_of_another_class_is_refused_by_name(kind, options):
    with pytest.raises(UnsupportedError, match=f"prune knows UNet2DConditionModel alone, and this network is {kind}"):
        Prune(**options).config({"_class_name": kind, "sample_size": 64})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "nothing says what goes"),
        ({"preset": "vega", "blocks": {}}, "both preset and blocks"),
        ({"preset": "koala"}, "koala-700m"),
        ({"blocks": {"mid_block": {"pairs": [1, 0]}}}, "rising"),
        ({"blocks": {"mid_block": {"pairs": []}}}, "at least one"),
        ({"preset": "vega", "seed": 1}, "seed has no effect"),
        ({"preset": "depth-skip"}, "preset depth-skip needs a depth"),
        ({"preset": "vega", "depth": 9}, "depth 9 has no effect without preset: depth-skip"),
        ({"blocks": {}, "depth": 9}, "depth 9 has no effect without preset: depth-skip"),
        ({"preset": "depth-skip", "depth": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_options(options, told):
    with pytest.raises(ValidationError, match=told):
        Prune(**options)
