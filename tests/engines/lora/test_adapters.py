"""Files of a request become the inputs of a bundle's networks, and what does not fit is refused with what would."""

import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.lora.adapters import Adapters
from engines.lora.choice import LoraChoice
from engines.lora.layers import LoraLimits
from tests.engines.lora import networks
from tests.engines.lora.networks import saved, tensors


@pytest.fixture
def bundle(tmp_path):
    return networks.bundle(tmp_path / "bundle")


def choice(file, *scales):
    return LoraChoice(file, scales or (1.0,))


def bound(bundle, *choices):
    return Adapters(bundle).bind(choices)["unet"]


def refused(bundle, file, told, *scales):
    with pytest.raises(UnsupportedError, match=told):
        bound(bundle, choice(file, *scales))


def change(arrays, index, item=0):
    """B · scales · A of a layer, of rows, of an image's pixels or of a kernel."""
    a, b = arrays[f"lora_a_{index}"], arrays[f"lora_b_{index}"]
    if index == 0:
        return (a * arrays["lora_scale"][item]) @ b
    scale = arrays["lora_scale_conv" if index == 2 else "lora_scale"][item]
    return (b.reshape(len(b), -1) * scale) @ a.reshape(len(a), -1)


def test_every_layer_gets_its_own_factors_scaled_by_item(bundle, tmp_path):
    first, second = tensors(rank=3), tensors(rank=5, seed=7)
    files = saved(tmp_path / "a.safetensors", first), saved(tmp_path / "b.safetensors", second)
    arrays = bound(bundle, choice(files[0], 1.0, 0.0, 2.0), choice(files[1], 0.5, -1.0, 0.0))
    assert arrays["lora_scale"].shape == (3, 8)
    assert arrays["lora_scale_conv"].shape == (3, 16)
    for index, layer in enumerate(networks.LAYERS[:3]):
        own = [
            found[f"unet.{layer.name}.lora_B.weight"].reshape(layer.shape[0], -1)
            @ (down := found[f"unet.{layer.name}.lora_A.weight"]).reshape(len(down), -1)
            for found in (first, second)
        ]
        for item, scales in enumerate([(1.0, 0.5), (0.0, -1.0), (2.0, 0.0)]):
            wanted = scales[0] * own[0] + scales[1] * own[1]
            np.testing.assert_allclose(change(arrays, index, item), wanted.T if index == 0 else wanted, rtol=1e-4, atol=1e-5)
    signature = bundle.manifest.parts["unet"].signature
    assert {port.name for port in signature.inputs if port.optional} == set(arrays)


def test_the_same_files_are_the_same_arrays_that_nobody_writes_to(bundle, tmp_path):
    file, adapters = saved(tmp_path / "a.safetensors"), Adapters(bundle)
    one, two = (adapters.bind([choice(file, scale)])["unet"] for scale in (1.0, 0.5))
    for name, array in one.items():
        assert name.startswith("lora_scale") or (array is two[name] and not array.flags.writeable)
    saved(file, tensors(seed=9))
    assert not np.array_equal(adapters.bind([choice(file)])["unet"]["lora_a_0"], one["lora_a_0"])


@pytest.mark.parametrize("name", ["blocks.0.to_q", "input_blocks.1.to_q"])
@pytest.mark.parametrize(
    ("start", "ends"),
    [
        ("unet.", (".lora_A.weight", ".lora_B.weight")),
        ("base_model.model.unet.", (".lora_A.weight", ".lora_B.weight")),
        ("diffusion_model.", (".lora_down.weight", ".lora_up.weight")),
        ("lora_unet_", (".lora_down.weight", ".lora_up.weight")),
        ("lycoris_unet_", (".lora_down.weight", ".lora_up.weight")),
    ],
)
def test_every_spelling(bundle, tmp_path, name, start, ends):
    found = tensors(names=["blocks.0.to_q"])
    wanted = bound(bundle, choice(saved(tmp_path / "a.safetensors", found)))
    key = start + (name.replace(".", "_") if start.endswith("_") else name)
    own = dict(zip((key + end for end in ends), found.values(), strict=True))
    arrays = bound(bundle, choice(saved(tmp_path / "b.safetensors", own)))
    assert np.array_equal(change(arrays, 0), change(wanted, 0))
    assert not arrays["lora_a_1"].any()


def test_alpha_of_peft_beside_the_file_and_of_kohya_inside(bundle, tmp_path):
    found = tensors(names=["blocks.0.to_q"])
    plain = change(bound(bundle, choice(saved(tmp_path / "a.safetensors", found))), 0)
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 6, "r": 3}')
    peft = bound(bundle, choice(saved(tmp_path / "adapter_model.safetensors", found)))
    kohya = bound(bundle, choice(saved(tmp_path / "k.safetensors", found | {"unet.blocks.0.to_q.alpha": np.float32([6])})))
    for arrays in (peft, kohya):
        np.testing.assert_allclose(change(arrays, 0), 2 * plain, rtol=1e-5)


def test_nothing_to_change_is_nothing_to_feed(bundle, tmp_path):
    adapters = Adapters(bundle)
    assert adapters.bind([]) == {} == adapters.bind([choice(saved(tmp_path / "a.safetensors"), 0.0, 0.0)])


def test_more_loras_than_slots(bundle, tmp_path):
    files = [saved(tmp_path / f"{name}.safetensors", tensors(seed=seed)) for seed, name in enumerate("abc")]
    with pytest.raises(UnsupportedError, match=r"3 LoRAs .* 2 slots. Leave out c.safetensors, or .* lora.slots: 3"):
        Adapters(bundle).bind([choice(file) for file in files])
    assert Adapters(bundle).bind([choice(files[0]), choice(files[1]), choice(files[2], 0.0)])


def test_a_rank_above_the_maximum(bundle, tmp_path):
    refused(
        bundle, saved(tmp_path / "a.safetensors", tensors(rank=9)), "has rank 9, and this bundle takes up to 8.\n.*conv_rank: 16"
    )
    rows = saved(tmp_path / "b.safetensors", tensors(rank=9, names=["blocks.0.to_q"]))
    refused(bundle, rows, r"unet.blocks.0.to_q has rank 9.*\n.*components.unet.lora.max_rank: 16")


def test_another_base(bundle, tmp_path):
    found = tensors(names=["blocks.0.to_q"])
    wide = {name: np.zeros((3, 9) if "lora_A" in name else value.shape, np.float32) for name, value in found.items()}
    refused(
        bundle, saved(tmp_path / "a.safetensors", wide), r"down \[3, 9\] .* do not make the model's weight \[6, 4\].\n.*another"
    )
    other = {name.replace("blocks.0", "blocks.7"): value for name, value in found.items()}
    refused(bundle, saved(tmp_path / "b.safetensors", other), "2 weights have no place in the model: unet.blocks.7.to_q")


def test_a_layer_that_the_build_left_out_and_a_network_without_loras(bundle, tmp_path):
    found = {
        f"unet.conv_in.lora_{side}.weight": np.zeros(shape, np.float32)
        for side, shape in {"A": (2, 4, 3, 3), "B": (3, 2, 1, 1)}.items()
    }
    refused(bundle, saved(tmp_path / "a.safetensors", found), "layers of unet that the build left out: conv_in")
    text = {
        name.replace("unet.blocks.0.to_q", "text_encoder.layer"): value
        for name, value in tensors(names=["blocks.0.to_q"]).items()
    }
    refused(
        bundle,
        saved(tmp_path / "b.safetensors", text),
        "changes text_encoder, which .* without LoRAs.*\n.*components.text_encoder.lora",
    )


def test_a_layer_that_the_network_does_not_use_changes_nothing(tmp_path):
    unused = networks.LAYERS[3].model_copy(update={"used": False})
    bundle = networks.bundle(tmp_path / "bundle", layers=(*networks.LAYERS[:3], unused))
    found = {
        f"unet.conv_in.lora_{side}.weight": np.zeros(shape, np.float32)
        for side, shape in {"A": (2, 4, 3, 3), "B": (3, 2, 1, 1)}.items()
    }
    both = bound(bundle, choice(saved(tmp_path / "a.safetensors", tensors() | found)))
    alone = bound(bundle, choice(saved(tmp_path / "b.safetensors", tensors())))
    assert all(np.array_equal(both[name], array) for name, array in alone.items())


def test_what_is_of_no_low_rank_half_there_or_not_finite(bundle, tmp_path):
    found = tensors(names=["blocks.0.to_q"])
    whole = {"unet.blocks.0.to_q.diff": np.zeros((6, 4), np.float32)}
    refused(bundle, saved(tmp_path / "a.safetensors", whole), "difference of whole weights, .* only be fused: .*model.loras")
    half = {name: value for name, value in found.items() if "lora_A" in name}
    refused(bundle, saved(tmp_path / "b.safetensors", half), "has no up")
    bad = {name: value * np.float32(np.nan) for name, value in found.items()}
    refused(bundle, saved(tmp_path / "c.safetensors", bad), "has NaN or infinite values")
    oft = {"unet.blocks.0.to_q.oft_diag": np.zeros(3, np.float32)}
    refused(bundle, saved(tmp_path / "d.safetensors", oft), "format that is not read, OFT")
    refused(bundle, tmp_path / "nothing.safetensors", "cannot be read")
    word = {"bundle_emb.mycat.clip_l": np.zeros((2, 4), np.float32), **found}
    refused(bundle, saved(tmp_path / "f.safetensors", word), "brings along the word mycat, which only a build can teach")
    twice = found | {name.replace("unet.", "diffusion_model."): value for name, value in found.items()}
    refused(bundle, saved(tmp_path / "e.safetensors", twice), "have no place")


def test_a_bundle_that_takes_none_says_how_to_build_one(tmp_path):
    from tests.engines import small

    with pytest.raises(UnsupportedError, match=r"built without LoRAs at run time\. Build .* components\.unet\.lora"):
        Adapters(small.make(tmp_path / "plain")).bind([choice(saved(tmp_path / "a.safetensors"))])


def test_a_bundle_without_larger_convolutions(tmp_path):
    limits = LoraLimits(slots=1, max_rank=8, conv_rank=0)
    layers = tuple(
        layer.model_copy(update={"index": None if layer.form == "convolution" else layer.index}) for layer in networks.LAYERS
    )
    bundle = networks.bundle(tmp_path / "bundle", limits=limits, layers=layers)
    assert "lora_scale_conv" not in bound(bundle, choice(saved(tmp_path / "a.safetensors", tensors(names=["blocks.0.to_q"]))))
    refused(bundle, saved(tmp_path / "b.safetensors"), "left out: blocks.0.conv.\n.*conv_rank above 0")


def test_threads_get_their_own_loras(bundle, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    files = [saved(tmp_path / f"{name}.safetensors", tensors(seed=seed)) for seed, name in enumerate("abc")]
    wanted = [bound(bundle, choice(file))["lora_a_0"] for file in files]
    adapters = Adapters(bundle)
    with ThreadPoolExecutor(6) as threads:
        for index, got in enumerate(threads.map(lambda index: adapters.bind([choice(files[index % 3])]), range(60))):
            assert np.array_equal(got["unet"]["lora_a_0"], wanted[index % 3])
