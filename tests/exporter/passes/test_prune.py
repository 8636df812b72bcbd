"""Cuts are the published ones to the parameter, carry the source's tensors, and load in diffusers; wrong ones are refused."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from pydantic import ValidationError

from engines.errors import UnsupportedError
from exporter.families.sdxl import Sdxl
from exporter.models import architectures
from exporter.models.resolve import resolve
from exporter.passes.prune import Prune
from exporter.pruning import blocks
from exporter.pruning.presets import PRESETS
from exporter.pruning.surgery import carry_out, outline
from exporter.recipe.schema import Model
from tests.exporter import equality, models

#: Source, preset, what it must equal, parameters of its UNet.
PUBLISHED = [
    ("sd-v1-5", "bk-sdm-base", "bk-sdm-base", 579_384_964),
    ("sd-v1-5", "bk-sdm-small", "bk-sdm-small", 482_346_884),
    ("sd-v1-5", "bk-sdm-tiny", "bk-sdm-tiny", 323_384_964),
    ("sd-v2-1-base", "bk-sdm-base", "bk-sdm-v2-base", 583_480_964),
    ("sd-v2-1-base", "bk-sdm-small", "bk-sdm-v2-small", 485_787_524),
    ("sd-v2-1-base", "bk-sdm-tiny", "bk-sdm-v2-tiny", 326_825_604),
    ("sdxl-base", "koala-1b", "koala-1b", 1_161_184_324),
    ("sdxl-base", "koala-700m", "koala-700m", 782_822_724),
    ("sdxl-base", "ssd-1b", "ssd-1b", 1_331_334_404),
    ("sdxl-base", "vega", "segmind-vega", 745_225_604),
    ("sd-v1-5", "sdxs", "sdxs-512-dreamshaper", 315_746_244),
    ("sd-v2-1-base", "sdxs-0.9", "sdxs-512-0.9", 328_177_284),
]


def skeleton(name):
    return resolve(Model(source=name, weights="random"), Path()).skeleton("unet")


def cut(prune, network):
    return carry_out(network, prune._cut(network.config))


def call(network, size=16):
    """One call on fixed inputs; sizes of the tiny networks."""
    generator = torch.Generator().manual_seed(0)
    latent, text = torch.randn(2, 4, size, size, generator=generator), torch.randn(2, 7, 16, generator=generator)
    with torch.no_grad():
        return network(latent, torch.tensor(500), text).sample


@pytest.fixture
def network():
    """Two pairs down and three up, attentions of three layers within."""
    return models.unet(layers_per_block=2, transformer_layers_per_block=[1, 3, 1])


def test_every_preset_is_compared_with_a_published_network():
    assert {preset for _, preset, _, _ in PUBLISHED} == set(PRESETS)


@pytest.mark.parametrize(("source", "preset", "published", "parameters"), PUBLISHED)
def test_the_published_network(source, preset, published, parameters):
    before = skeleton(source)
    found = Prune(preset=preset).config(architectures.configs(source)["unet"])
    made = cut(Prune(preset=preset), before)
    assert sum(value.numel() for value in made.parameters()) == parameters
    want = skeleton(published)
    assert {name: value.shape for name, value in made.state_dict().items()} == {n: v.shape for n, v in want.state_dict().items()}
    for name, value in want.config.items():
        if not name.startswith("_") and name != "transformer_layers_per_block":  # its entries without attentions mean nothing
            assert made.config[name] == value, name
    with torch.device("meta"):
        assert sum(value.numel() for value in UNet2DConditionModel.from_config(found).parameters()) == parameters


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


def test_nothing_dropped_is_the_same_function(network):
    assert torch.equal(call(cut(Prune(blocks={}), network)), call(network))


def test_weights_go_where_bk_sdm_puts_them(network):
    base, tiny = (cut(Prune(preset=f"bk-sdm-{size}"), network) for size in ("base", "tiny"))
    for new, old in (
        (base.up_blocks[1].resnets[1], network.up_blocks[1].resnets[2]),
        (base.up_blocks[1].resnets[0], network.up_blocks[1].resnets[0]),
        (base.down_blocks[1].resnets[0], network.down_blocks[1].resnets[0]),
        (base.mid_block.resnets[1], network.mid_block.resnets[1]),
        (tiny.up_blocks[0].resnets[1], network.up_blocks[1].resnets[2]),
        (tiny.up_blocks[1].resnets[0], network.up_blocks[2].resnets[0]),
        (tiny.down_blocks[1].resnets[0], network.down_blocks[1].resnets[0]),
    ):
        assert torch.equal(new.conv1.weight, old.conv1.weight)
        assert new.conv1.weight.data_ptr() == old.conv1.weight.data_ptr(), "not copied"
    assert torch.equal(tiny.up_blocks[0].upsamplers[0].conv.weight, network.up_blocks[1].upsamplers[0].conv.weight)
    assert tiny.down_blocks[1].downsamplers is None


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
    assert Prune(blocks=blocks, weights="random").told == "prune: a block map, random weights"


def silence(layer):
    """Make a transformer layer pass its input on."""
    for linear in (layer.attn1.to_out[0], layer.attn2.to_out[0], layer.ff.net[2]):
        linear.weight.zero_()
        linear.bias.zero_()


@pytest.mark.parametrize(
    "blocks",
    [
        {"down_blocks.1": {"layers": [0, 2]}},
        {"up_blocks.1": {"layers": [[0, 2], [0, 1, 2], [0, 2]]}},
        {"down_blocks.1": {"layers": [[0, 2], [0, 1, 2]]}, "up_blocks.1": {"layers": [0, 2]}},
    ],
)
def test_a_layer_that_does_nothing_can_go(network, blocks):
    with torch.no_grad():
        for block in (network.down_blocks[1], network.up_blocks[1]):
            for attention in block.attentions:
                silence(attention.transformer_blocks[1])
    made = cut(Prune(blocks=blocks), network)
    assert sum(value.numel() for value in made.parameters()) < sum(value.numel() for value in network.parameters())
    assert torch.allclose(call(made), call(network), atol=1e-6)


def test_a_mid_block_and_attentions_that_do_nothing_can_go(network):
    with torch.no_grad():
        for module in (*network.mid_block.attentions, *network.up_blocks[2].attentions):
            module.proj_out.weight.zero_()
            module.proj_out.bias.zero_()
        for resnet in network.mid_block.resnets:
            resnet.conv2.weight.zero_()
            resnet.conv2.bias.zero_()
    made = cut(Prune(blocks={"mid_block": None, "up_blocks.2": {"attention": "none"}}), network)
    assert made.mid_block is None
    assert made.config.up_block_types[2] == "UpBlock2D"
    assert torch.allclose(call(made), call(network), atol=1e-6)


def test_a_mid_block_may_keep_one_resnet(network):
    made = cut(Prune(blocks={"mid_block": {"attention": "none"}}), network)
    assert made.config.mid_block_type == "UNetMidBlock2D"
    assert torch.equal(made.mid_block.resnets[0].conv1.weight, network.mid_block.resnets[0].conv1.weight)


def test_layers_are_shares_of_what_the_model_has():
    config = UNet2DConditionModel.load_config(Path(__file__).parents[3] / "recipes" / "demo" / "unet")
    depths = {
        preset: Prune(preset=preset).config(config)["transformer_layers_per_block"] for preset in ("koala-1b", "koala-700m")
    }
    assert depths == {"koala-1b": [1, 1, 2], "koala-700m": 1}
    with torch.device("meta"):
        whole, small = (
            sum(value.numel() for value in UNet2DConditionModel.from_config(each).parameters())
            for each in (config, Prune(preset="koala-700m").config(config))
        )
    assert small / whole <= 0.45


@pytest.mark.parametrize(("source", "preset"), [(source, preset) for source, preset, _, _ in PUBLISHED])
def test_a_cut_can_be_written_as_a_block_map(source, preset):
    config = architectures.configs(source)["unet"]
    whole = blocks.whole(config)
    made = PRESETS[preset](preset, whole)
    said = blocks.blocks(made, whole)
    assert blocks.chosen(whole, said) == made
    written = {name: block and block.model_dump(mode="json", exclude_defaults=True) for name, block in said.items()}
    assert Prune(blocks=written).config(config) == Prune(preset=preset).config(config)


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


SD, XL = architectures.configs("sd-v1-5")["unet"], architectures.configs("sdxl-base")["unet"]


@pytest.mark.parametrize(
    ("config", "options", "told"),
    [
        (SD, {"preset": "koala-700m"}, "0 transformer layers there: it is a cut of SDXL"),
        (XL, {"preset": "bk-sdm-tiny"}, "here 1280 and 640"),
        (XL, {"preset": "sdxs-0.9"}, "this UNet has none"),
        (architectures.configs("koala-1b")["unet"], {"preset": "koala-700m"}, r"this UNet's down blocks have \[1, 1, 1\]"),
        (architectures.configs("koala-1b")["unet"], {"preset": "ssd-1b"}, r"3 pairs, and this UNet's have \[2, 2, 2\]"),
        (SD, {"blocks": {"up_block.1": {}}}, "did you mean 'up_blocks.1'"),
        (SD, {"blocks": {"down_blocks.4": None}}, "has no such block"),
        (SD, {"blocks": {"down_blocks.0": {"pairs": [2]}}}, "there is no pair 2"),
        (SD, {"blocks": {"down_blocks.0": {"pairs": [0]}}}, "an up block has one more than its down block"),
        (SD, {"blocks": {"down_blocks.3": {"layers": [0]}}}, "no attentions"),
        (SD, {"blocks": {"down_blocks.0": {"layers": [1]}}}, r"must be at least one of \[0\]"),
        (SD, {"blocks": {"down_blocks.0": {"layers": []}}}, r"must be at least one of \[0\]"),
        (SD, {"blocks": {"down_blocks.0": {"layers": [[0]]}}}, "1 lists for 2 attentions"),
        (SD, {"blocks": {"down_blocks.0": None, "up_blocks.3": None}}, "only the innermost"),
        (SD, {"blocks": {"down_blocks.3": None}}, "on both sides or on neither"),
        (SD, {"blocks": {"down_blocks.3": None, "up_blocks.0": None}}, "the mid block goes too"),
        (SD, {"blocks": {"down_blocks.0": {"attention": "cross"}}}, "lose their self-attention together"),
        (XL, {"blocks": {"mid_block": {"layers": [0]}}}, "1 transformer layers and down_blocks.2's first attention 10"),
        (SD | {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, {"preset": "bk-sdm-base"}, "has UNetMidBlock2DSimple"),
    ],
)
def test_what_does_not_fit_is_refused(config, options, told):
    with pytest.raises(UnsupportedError, match=told):
        Prune(**options).config(config)


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
    ],
)
def test_wrong_options(options, told):
    with pytest.raises(ValidationError, match=told):
        Prune(**options)


def test_a_pair_that_does_not_fit_its_place_is_refused(network):
    with pytest.raises(UnsupportedError, match=r"up_blocks.1.resnets.1.* must be"):
        cut(Prune(blocks={"down_blocks.1": {"pairs": [0]}, "up_blocks.1": {"pairs": [0, 1]}}), network)


def test_an_outline_takes_no_memory(network):
    made = outline(network, Prune(preset="bk-sdm-small")._cut(network.config))
    assert {value.device.type for value in made.parameters()} == {"meta"}
