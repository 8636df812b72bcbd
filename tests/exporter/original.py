"""The original (ldm, sgm) names of a pipeline's weights: the inverse of what converters do, for models made in tests."""

import re
from collections.abc import Mapping

from safetensors.torch import load_file, save_file

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
OUTER = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
TOWER = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def save(folder, file, *, openclip=(), extra=None):
    """Write a diffusers folder as one original file; `openclip` names the towers in OpenCLIP's layout."""
    parts = {name: load_file(next((folder / name).glob("*.safetensors"))) for name in ("unet", "vae")}
    tensors = {f"model.diffusion_model.{unet(name, parts['unet'])}": value for name, value in parts["unet"].items()}
    tensors |= {f"first_stage_model.{name}": value for name, value in vae(parts["vae"]).items()}
    xl = (folder / "text_encoder_2").is_dir()
    for number, name in enumerate(("text_encoder", "text_encoder_2")[: 1 + xl]):
        prefix = f"conditioner.embedders.{number}." if xl else "cond_stage_model."
        tower = load_file(folder / name / "model.safetensors")
        tower = {key.removeprefix("text_model."): value for key, value in tower.items()}
        if name in openclip:
            tensors |= {f"{prefix}model.{key}": value for key, value in tower_of_openclip(tower).items()}
        else:
            tensors |= {f"{prefix}transformer.text_model.{key}": value for key, value in tower.items()}
    tensors |= extra or {}
    save_file({name: value.contiguous() for name, value in tensors.items()}, file)
    return file


def unet(name: str, known: Mapping[str, object], layers: int = 1) -> str:
    """Original name of a UNet's weight among those known; `layers` is layers_per_block."""
    head, _, kind = name.rpartition(".")
    if head in OUTER:
        return f"{OUTER[head]}.{kind}"
    if match := re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", name):
        way, stage, what, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        block = stage * (layers + 1) + layer + (way == "down")
        return f"{'input' if way == 'down' else 'output'}_blocks.{block}.{int(what == 'attentions')}.{inner(what, rest)}"
    if match := re.match(r"down_blocks\.(\d)\.downsamplers\.0\.conv\.(.*)", name):
        return f"input_blocks.{(int(match[1]) + 1) * (layers + 1)}.0.op.{match[2]}"
    if match := re.match(r"up_blocks\.(\d)\.upsamplers\.0\.conv\.(.*)", name):
        after = 2 if f"up_blocks.{match[1]}.attentions.0.norm.weight" in known else 1
        return f"output_blocks.{int(match[1]) * (layers + 1) + layers}.{after}.conv.{match[2]}"
    match = re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name)
    place = 1 if match[1] == "attentions" else 2 * int(match[2])
    return f"middle_block.{place}.{inner(match[1], match[3])}"


def inner(what: str, rest: str) -> str:
    head, _, kind = rest.rpartition(".")
    return f"{RESNET[head]}.{kind}" if what == "resnets" else rest


def vae(tensors: dict, stages: int = 3) -> dict:
    found = {}
    for name, value in tensors.items():
        new = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{stages - 1 - int(m[1])}.block.", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{stages - 1 - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if match := re.match(r"(.*)mid_block\.attentions\.0\.(.*)\.(weight|bias)", new):
            new = f"{match[1]}mid.attn_1.{ATTENTION[match[2]]}.{match[3]}"
            found[new] = value[:, :, None, None] if value.ndim == 2 else value
        else:
            found[new] = value
    return found


def tower_of_openclip(tensors: dict) -> dict:
    import torch

    found = {"logit_scale": torch.tensor(4.6)}
    for name, value in tensors.items():
        if name == "text_projection.weight":
            found["text_projection"] = value.T
            continue
        new = name.replace("embeddings.token_embedding", "token_embedding").replace("final_layer_norm", "ln_final")
        new = new.replace("embeddings.position_embedding.weight", "positional_embedding")
        new = new.replace("encoder.layers.", "transformer.resblocks.")
        for old, short in TOWER.items():
            new = new.replace(old, short)
        if ".self_attn." in new:
            new = new.replace(".self_attn.", ".attn.")
            if match := re.match(r"(.*\.attn\.)q_proj\.(\w+)", new):
                three = [tensors[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
                found[f"{match[1]}in_proj_{match[2]}"] = torch.cat(three)
            if "out_proj" not in new:
                continue
        found[new] = value
    return found
