"""Every way in which files change a network's weights equals its formula, and where peft knows it, peft."""

import json

import pytest
import torch
from safetensors.torch import save_file

from engines.errors import UnsupportedError
from engines.lora import spelling
from tests.exporter import original
from tests.exporter.models.test_lora import found

LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"  # 16 × 16
CONV = "down_blocks.1.resnets.0.conv1"  # 16 × 8 × 3 × 3
NORM = "down_blocks.1.resnets.0.norm1"  # 8
K, C, N = (f"lora_unet_{name.replace('.', '_')}" for name in (LAYER, CONV, NORM))
TE = "text_model.encoder.layers.0.self_attn.q_proj"


def r(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape) + seed)) * 0.3


def written(tmp_path, tensors, words=None, name="a.safetensors"):
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, tmp_path / name, words)
    return tmp_path / name


A, B = r(2, 16), r(16, 2, seed=1)
ALPHA = {"alpha": torch.tensor(4.0)}
W1, W2 = (r(16, 2, seed=n) @ r(2, 16, seed=n + 1) for n in (2, 4))
TUCKER = torch.einsum("ijkl,jr,ip->prkl", r(2, 2, 3, 3), r(2, 4, seed=1), r(2, 4)).contiguous()
KRON = torch.kron(r(4, 4), r(4, 4, seed=1))
CASES = {
    "lora": (K, LAYER, {"lora_down.weight": A, "lora_up.weight": B, **ALPHA}, 2 * B @ A),
    "without alpha": (K, LAYER, {"lora_down.weight": A, "lora_up.weight": B}, B @ A),
    "loha": (
        K, LAYER,
        {
            **{f"hada_w{n}_a": r(16, 2, seed=2 * n) for n in (1, 2)}, **ALPHA,
            **{f"hada_w{n}_b": r(2, 16, seed=2 * n + 1) for n in (1, 2)},
        },
        2 * W1 * W2,
    ),
    "loha of a convolution": (
        C, CONV,
        {"hada_w1_a": r(16, 2), "hada_w1_b": r(2, 72), "hada_w2_a": r(16, 2, seed=1), "hada_w2_b": r(2, 72, seed=1), **ALPHA},
        (2 * (r(16, 2) @ r(2, 72)) * (r(16, 2, seed=1) @ r(2, 72, seed=1))).reshape(16, 8, 3, 3),
    ),
    "loha tucker": (
        C, CONV,
        {
            **{f"hada_t{n}": r(2, 2, 3, 3, seed=n) for n in (1, 2)}, **ALPHA,
            **{f"hada_w{n}_a": r(2, 16, seed=n) for n in (1, 2)}, **{f"hada_w{n}_b": r(2, 8, seed=n) for n in (1, 2)},
        },
        2 * torch.stack(
            [torch.einsum("ijkl,jr,ip->prkl", r(2, 2, 3, 3, seed=n), r(2, 8, seed=n), r(2, 16, seed=n)) for n in (1, 2)]
        ).prod(0),
    ),
    "lokr": (K, LAYER, {"lokr_w1": r(4, 4), "lokr_w2": r(4, 4, seed=1), **ALPHA}, KRON),
    "lokr in factors": (
        K, LAYER,
        {"lokr_w1": r(4, 4), "lokr_w2_a": r(4, 2), "lokr_w2_b": r(2, 4, seed=1), **ALPHA},
        2 * torch.kron(r(4, 4), r(4, 2) @ r(2, 4, seed=1)),
    ),
    "lokr of a convolution": (
        C, CONV,
        {"lokr_w1_a": r(4, 2), "lokr_w1_b": r(2, 2), "lokr_w2": r(4, 4, 3, 3), **ALPHA},
        2 * torch.kron((r(4, 2) @ r(2, 2))[:, :, None, None], r(4, 4, 3, 3)),
    ),
    "lokr of a convolution in factors": (
        C, CONV,
        {"lokr_w1": r(4, 2), "lokr_w2_a": r(4, 3), "lokr_w2_b": r(3, 36)},
        torch.kron(r(4, 2)[:, :, None, None], (r(4, 3) @ r(3, 36)).reshape(4, 4, 3, 3)),
    ),
    "a scalar beside lokr": (
        K, LAYER, {"lokr_w1": r(4, 4), "lokr_w2": r(4, 4, seed=1), **ALPHA, "scalar": torch.tensor(0.25)}, KRON / 4
    ),
    "a scalar beside loha": (
        K, LAYER,
        {
            **{f"hada_w{n}_a": r(16, 2, seed=2 * n) for n in (1, 2)}, "scalar": torch.tensor([-0.5]),
            **{f"hada_w{n}_b": r(2, 16, seed=2 * n + 1) for n in (1, 2)},
        },
        -0.5 * W1 * W2,
    ),
    "a scalar beside locon": (
        K, LAYER, {"lora_down.weight": A, "lora_up.weight": B, **ALPHA, "scalar": torch.tensor(3.0)}, 6 * B @ A
    ),
    "lokr tucker": (
        C, CONV,
        {"lokr_w1": r(4, 2), "lokr_t2": r(2, 2, 3, 3), "lokr_w2_a": r(2, 4), "lokr_w2_b": r(2, 4, seed=1), **ALPHA},
        2 * torch.kron(r(4, 2)[:, :, None, None], TUCKER),
    ),
    "locon": (
        C, CONV, {"lora_down.weight": r(2, 8, 3, 3), "lora_up.weight": r(16, 2, 1, 1), **ALPHA},
        2 * (r(16, 2, 1, 1).flatten(1) @ r(2, 8, 3, 3).flatten(1)).reshape(16, 8, 3, 3),
    ),
    "locon tucker": (
        C, CONV, {"lora_down.weight": r(2, 8, 1, 1), "lora_mid.weight": r(2, 2, 3, 3), "lora_up.weight": r(16, 2, 1, 1), **ALPHA},
        2 * torch.einsum("op,pqkl,qi->oikl", r(16, 2, 1, 1)[:, :, 0, 0], r(2, 2, 3, 3), r(2, 8, 1, 1)[:, :, 0, 0]),
    ),
    "full": (K, LAYER, {"diff": r(16, 16)}, r(16, 16)),
    "norm": (N, NORM, {"w_norm": r(8), "b_norm": r(8, seed=1)}, r(8)),
    "fp8": (
        K, LAYER, {"lora_down.weight": A.to(torch.float8_e4m3fn), "lora_up.weight": B.to(torch.float8_e4m3fn), **ALPHA},
        2 * B.to(torch.float8_e4m3fn).float() @ A.to(torch.float8_e4m3fn).float(),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def before(tiny_sdxl):
    return {name: value.clone() for name, value in found(tiny_sdxl).module("unet").state_dict().items()}


@pytest.mark.parametrize("case", CASES)
def test_equals_its_formula(tiny_sdxl, tmp_path, before, case):
    key, layer, pieces, change = CASES[case]
    file = written(tmp_path, {f"{key}.{name}": value for name, value in pieces.items()})
    after = found(tiny_sdxl, {"source": str(file), "scale": 0.5}).module("unet").state_dict()
    torch.testing.assert_close(after[f"{layer}.weight"], before[f"{layer}.weight"] + 0.5 * change, rtol=1e-5, atol=1e-6)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{layer}.weight"} | ({f"{layer}.bias"} if "b_norm" in pieces else set())


def test_a_bias(tiny_sdxl, tmp_path, before):
    file = written(tmp_path, {f"{C}.diff": r(16, 8, 3, 3), f"{C}.diff_b": r(16), f"{N}.b_norm": r(8)})
    after = found(tiny_sdxl, file).module("unet").state_dict()
    torch.testing.assert_close(after[f"{CONV}.bias"], before[f"{CONV}.bias"] + r(16))
    torch.testing.assert_close(after[f"{NORM}.bias"], before[f"{NORM}.bias"] + r(8))
    assert torch.equal(after[f"{NORM}.weight"], before[f"{NORM}.weight"])


@pytest.mark.parametrize("layer", [LAYER, CONV])
@pytest.mark.parametrize("shape", ["inputs", "outputs"])
def test_dora_as_kohya_has_it(tiny_sdxl, tmp_path, before, layer, shape):
    weight = before[f"{layer}.weight"]
    key, down, up = (K, A, B) if layer == LAYER else (C, r(2, 8, 3, 3), r(16, 2, 1, 1))
    axis = 1 if shape == "inputs" else 0
    lengths = (r(weight.shape[axis]).abs() + 1).reshape([-1 if number == axis else 1 for number in range(weight.ndim)])
    file = written(tmp_path, {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.dora_scale": lengths})
    changed = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    axes = [number for number in range(weight.ndim) if number != axis]
    wanted = lengths * changed / torch.linalg.vector_norm(changed, dim=axes, keepdim=True)
    for scale in (1.0, 0.5):
        after = found(tiny_sdxl, {"source": str(file), "scale": scale}).module("unet").state_dict()[f"{layer}.weight"]
        torch.testing.assert_close(after, weight + scale * (wanted - weight), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"use_dora": True}, {"alpha_pattern": {"attn1.to_q": 1}}], ids=str)
def test_a_folder_of_peft(tiny_sdxl, tmp_path, changes):
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig, get_peft_model

    unet = UNet2DConditionModel.from_pretrained(tiny_sdxl, subfolder="unet")
    options = {"r": 2, "lora_alpha": 8, "target_modules": ["to_q", "conv1"], "init_lora_weights": False}
    adapted = get_peft_model(unet, LoraConfig(**options, **changes))
    for name, value in adapted.named_parameters():
        if "magnitude" in name:
            value.data *= 1.5
    adapted.save_pretrained(tmp_path / "peft")
    assert (tmp_path / "peft" / "adapter_config.json").is_file()
    wanted = adapted.merge_and_unload().state_dict()
    after = found(tiny_sdxl, tmp_path / "peft").module("unet").state_dict()
    for name, value in wanted.items():
        torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LoHaConfig", {"alpha": 8}),
        ("LoHaConfig", {"alpha": 8, "use_effective_conv2d": True, "rank_pattern": {"conv1": 3}, "alpha_pattern": {"conv1": 5}}),
        ("LoKrConfig", {"alpha": 6}),  # whose whole factors are scaled too
        ("LoKrConfig", {"alpha": 6, "decompose_both": True, "decompose_factor": 2, "use_effective_conv2d": True}),
        ("LoraConfig", {"lora_alpha": 8, "lora_bias": True, "target_modules": ["conv1", "to_out.0"]}),
    ],
)  # fmt: skip
def test_other_ways_of_peft_equal_its_own_sums(tiny_sdxl, tmp_path, kind, options):
    import peft
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(tiny_sdxl, subfolder="unet")
    config = getattr(peft, kind)(**{"r": 2, "target_modules": ["to_q", "conv1"], **options})
    adapted = peft.get_peft_model(unet, config)
    for name, value in adapted.named_parameters():
        if value.requires_grad:
            value.data += r(*value.shape, seed=len(name))
    adapted.save_pretrained(tmp_path / "peft")
    wanted = adapted.merge_and_unload().state_dict()
    after = found(tiny_sdxl, tmp_path / "peft").module("unet").state_dict()
    for name, value in wanted.items():
        torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-5, msg=name)


PEFT_MARKS = {
    "lora_E": "AdaLoRA", "vera_lambda_b": "VeRA", "fourierft_spectrum": "FourierFT", "hra_u": "HRA", "miss_block": "MiSS",
    "ln_tuning_layers.weight": "LN tuning", "randlora_A": "RandLoRA", "shira_weight": "SHiRA", "c3a_kernel": "C3A",
    "delora_A": "DeLoRA", "road_theta": "RoAd", "gralora_A": "GraLoRA", "waveft_spectrum": "WaveFT", "boft_R": "BOFT",
    "oft_R.weight": "OFT", "ia3_l": r"\(IA\)³", "base_layer.bias": "whole weights to put in place",
}  # fmt: skip


@pytest.mark.parametrize("end", PEFT_MARKS)
def test_formats_of_peft_that_do_not_fuse_are_called_by_name(tiny_sdxl, tmp_path, end):
    file = written(tmp_path, {f"base_model.model.{LAYER}.{end}": r(16, 16)}, name="adapter_model.safetensors")
    with pytest.raises(UnsupportedError, match=f"in a format that is not fused here, {PEFT_MARKS[end]}: "):
        found(tiny_sdxl, file).module("unet")


def test_whole_weights_beside_a_lora_are_called_so(tiny_sdxl, tmp_path):
    """As peft's `modules_to_save` and `bias: all` write them."""
    tensors = {f"base_model.model.{LAYER}.lora_A.weight": A, f"base_model.model.{LAYER}.lora_B.weight": B}
    file = written(tmp_path, {**tensors, "base_model.model.conv_in.weight": r(8, 4, 3, 3)})
    with pytest.raises(UnsupportedError, match=r"fused here, whole weights to put in place: .*conv_in.weight"):
        found(tiny_sdxl, file).module("unet")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "OFT"}, "in a format that is not read, OFT of peft.\n  LORA, LOHA and LOKR are"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "init_lora_weights: pissa_niter_4, a start that changed the model's own",
        ),
        ({"unet.init_lora_weights": "olora"}, "init_lora_weights: olora"),
    ],
)
def test_what_peft_s_config_says_is_read(tiny_sdxl, tmp_path, config, told):
    tensors = {f"unet.{LAYER}.lora_A.weight": A, f"unet.{LAYER}.lora_B.weight": B}
    with pytest.raises(UnsupportedError, match=told):
        found(tiny_sdxl, written(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(config)}))


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", None])
def test_starts_that_leave_the_model_alone_are_taken(tiny_sdxl, tmp_path, start):
    tensors = {f"unet.{LAYER}.lora_A.weight": A, f"unet.{LAYER}.lora_B.weight": B}
    words = {"lora_adapter_metadata": json.dumps({"unet.init_lora_weights": start})}
    assert found(tiny_sdxl, written(tmp_path, tensors, words)).loras[0].components == {"unet"}


def test_whole_numbers_without_their_scales_are_refused(tiny_sdxl, tmp_path):
    file = written(tmp_path, {f"{K}.lora_down.weight": A.to(torch.int8), f"{K}.lora_up.weight": B, f"{K}.alpha": torch.tensor(4)})
    with pytest.raises(UnsupportedError, match=r"lora_down\.weight is of whole numbers"):
        found(tiny_sdxl, file).module("unet")


def test_spellings(tiny_sdxl, tmp_path, before):
    sgm = original.unet(f"{LAYER}.weight", before).removesuffix(".weight")
    names = [f"unet.{LAYER}", f"diffusion_model.{sgm}", f"lora_unet_{sgm.replace('.', '_')}", LAYER, K]
    names += [f"lycoris_{LAYER.replace('.', '_')}", f"lycoris_unet_{LAYER.replace('.', '_')}"]
    ends = dict.fromkeys(names, (".lora_down.weight", ".lora_up.weight"))
    ends |= {f"base_model.model.{LAYER}": (".lora_A.weight", ".lora_B.weight")}
    processor = LAYER.replace(".to_q", ".processor.to_q_lora")
    ends |= {f"unet.{processor}": (".down.weight", ".up.weight"), processor: (".down.weight", ".up.weight")}
    for number, (name, (down, up)) in enumerate(ends.items()):
        file = written(tmp_path, {name + down: A, name + up: B}, name=f"{number}.safetensors")
        after = found(tiny_sdxl, file).module("unet").state_dict()[f"{LAYER}.weight"]
        torch.testing.assert_close(after, before[f"{LAYER}.weight"] + B @ A, rtol=1e-5, atol=1e-6, msg=name)


def test_every_layer_has_its_original_name(before):
    """The map of the tests' converter, which goes the other way, and this one agree."""
    config = {"down_block_types": [""] * 3, "layers_per_block": 1}
    layers = sorted({name.rpartition(".")[0] for name in before})
    found = spelling.spellings("unet", layers, config)
    for layer in layers:
        wanted = original.unet(f"{layer}.weight", before).removesuffix(".weight")
        assert found[wanted] == layer
        assert found[f"lora_unet_{wanted.replace('.', '_')}"] == layer


STARTS = ["lora_te_", "lora_te1_", "lycoris_", "text_encoder.", "text_encoders.clip_l.transformer.", "base_model.model."]


@pytest.mark.parametrize("start", STARTS)
def test_the_text_encoder_alone(tiny_sd, tmp_path, start):
    key = start + (TE.replace(".", "_") if start.endswith("_") else TE)
    file = written(tmp_path, {f"{key}.lora_down.weight": A, f"{key}.lora_up.weight": B, f"{key}.alpha": torch.tensor(1.0)})
    checkpoint, plain = found(tiny_sd, file), found(tiny_sd)
    assert checkpoint.loras[0].components == {"text_encoder"}
    (name,) = [name for name in plain.module("text_encoder").state_dict() if name.endswith("layers.0.self_attn.q_proj.weight")]
    wanted = plain.module("text_encoder").state_dict()[name] + B @ A / 2
    torch.testing.assert_close(checkpoint.module("text_encoder").state_dict()[name], wanted, rtol=1e-5, atol=1e-6)
    both = [each.module("unet").parameters() for each in (checkpoint, plain)]
    assert all(torch.equal(one, two) for one, two in zip(*both, strict=True))


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"clip_l": r(2, 16), "clip_g": r(2, 24)}, "a textual inversion, and no LoRA.\n  .*model\\.embeddings"),
        ({"input_hint_block.0.weight": r(2, 3)}, "a ControlNet, and no LoRA"),
        ({"conv_in.weight": r(8, 4, 3, 3), "down_blocks.0.resnets.0.conv1.weight": r(8, 8, 3, 3)}, "a UNet alone, and no LoRA"),
        ({"x": r(2)}, "something else, and no LoRA.\n  Take a file with changes of weights"),
        ({}, "something else, and no LoRA"),
    ],
)
def test_a_file_that_is_no_lora_is_called_what_it_is(tiny_sdxl, tmp_path, tensors, told):
    with pytest.raises(UnsupportedError, match=told):
        found(tiny_sdxl, written(tmp_path, tensors))


@pytest.mark.parametrize("adapter", ["default", "default_0", "my-style"])
def test_peft_names_its_adapter(tiny_sdxl, tmp_path, adapter):
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"unet.{layer}.lora_{end}.{adapter}.weight": value for end, value in (("A", A), ("B", B))}
    plain = {name.replace(f".{adapter}", ""): value for name, value in tensors.items()}
    ours, theirs = (found(tiny_sdxl, written(tmp_path, each)).module("unet").state_dict() for each in (tensors, plain))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_bundled_embeddings_are_words(tiny_sdxl, tmp_path):
    tensors = {"bundle_emb.mycat.clip_l": r(2, 16), "bundle_emb.mycat.clip_g": r(2, 24)}
    tensors |= {f"{K}.lora_down.weight": A, f"{K}.lora_up.weight": B}
    checkpoint = found(tiny_sdxl, written(tmp_path, tensors))
    assert checkpoint.loras[0].components == {"unet"}
    assert [(each.word, each.tower, each.count) for each in checkpoint.embeddings] == [
        ("mycat", "text_encoder_2", 2), ("mycat", "text_encoder", 2)
    ]  # fmt: skip
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ({"hada_w1_a": r(16, 2), "hada_w1_b": r(2, 16)}, "has no hada_w2_a and no hada_w2_b"),
        ({"hada_w1_a": r(16, 2), "hada_w1_b": r(2, 16), "hada_w2_a": r(16, 2), "hada_w2_b": r(2, 8)}, "which do not fit"),
        ({"hada_w1_a": r(16, 2), "hada_w1_b": r(3, 16), "hada_w2_a": r(16, 2), "hada_w2_b": r(2, 16)}, "which do not fit"),
        ({"lokr_w1": r(4, 4), "lokr_w2": r(4, 3)}, "which do not make the model's weight"),
        ({"lokr_w1": r(4, 4)}, "has no lokr_w2_a and no lokr_w2_b"),
        ({"scalar": torch.tensor(2.0)}, "has scalar alone"),
        ({"lora_down.weight": A, "lora_up.weight": B, "scalar": r(3)}, "which do not make the model's weight"),
        ({"diff": r(16, 8)}, "which do not make the model's weight"),
        ({"diff_b": r(7)}, "has a bias"),
        ({"lora_down.weight": A, "lora_up.weight": B, "lora_mid.weight": r(3, 3, 1, 1)}, "which do not fit"),
        ({"lora_down.weight": A, "lora_up.weight": B, "dora_scale": torch.ones(5, 1)}, "has 5 lengths"),
    ],
    ids=str,
)  # fmt: skip
def test_pieces_that_do_not_fit(tiny_sdxl, tmp_path, pieces, told):
    file = written(tmp_path, {f"{K}.{name}": value for name, value in pieces.items()})
    with pytest.raises(UnsupportedError, match=told) as caught:
        found(tiny_sdxl, file).module("unet")
    assert "is for another model" in str(caught.value)


def test_the_digest_follows_peft_s_config(tiny_sdxl, tmp_path):
    (tmp_path / "peft").mkdir()
    tensors = {f"base_model.model.{LAYER}.lora_A.weight": A, f"base_model.model.{LAYER}.lora_B.weight": B}
    written(tmp_path / "peft", tensors, name="adapter_model.safetensors")
    digests = set()
    for alpha in (2, 4):
        (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": alpha}))
        digests.add(found(tiny_sdxl, tmp_path / "peft").digest("unet"))
    assert len(digests) == 2
