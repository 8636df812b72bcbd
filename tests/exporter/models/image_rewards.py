"""A tiny ImageReward in its published layout: names, shapes, config and tokenizer; its weights follow from their names."""

import json
import zlib
from pathlib import Path

import numpy as np

WIDTH, DEPTH, PATCH, SIDE = 128, 2, 8, 32
WIDE, LAYERS, INNER, POSITIONS = 64, 2, 96, 40
WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "red",
    "blue",
    "circle",
    "square",
    "star",
    "left",
    "of",
    "the",
    "##s",
    "2",
    ",",
)
#: Of [DEC] and [ENC], which BLIP adds.
VOCABULARY = len(WORDS) + 2
HEAD = {0: (24, WIDE), 2: (12, 24), 4: (8, 12), 6: (4, 8), 7: (1, 4)}


def shapes():
    """Published name → shape of every tensor that a reward needs."""
    eye, reader = "blip.visual_encoder.", "blip.text_encoder."
    found = {
        f"{eye}cls_token": (1, 1, WIDTH),
        f"{eye}pos_embed": (1, (SIDE // PATCH) ** 2 + 1, WIDTH),
        f"{eye}patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        f"{eye}patch_embed.proj.bias": (WIDTH,),
        **_norm(f"{eye}norm", WIDTH),
        f"{reader}embeddings.word_embeddings.weight": (VOCABULARY, WIDE),
        f"{reader}embeddings.position_embeddings.weight": (POSITIONS, WIDE),
        **_norm(f"{reader}embeddings.LayerNorm", WIDE),
    }
    for block in range(DEPTH):
        at = f"{eye}blocks.{block}."
        found |= _norm(f"{at}norm1", WIDTH) | _norm(f"{at}norm2", WIDTH)
        found |= _linear(f"{at}attn.qkv", WIDTH, 3 * WIDTH) | _linear(f"{at}attn.proj", WIDTH, WIDTH)
        found |= _linear(f"{at}mlp.fc1", WIDTH, 4 * WIDTH) | _linear(f"{at}mlp.fc2", 4 * WIDTH, WIDTH)
    for layer in range(LAYERS):
        at = f"{reader}encoder.layer.{layer}."
        for kind, seen in (("attention", WIDE), ("crossattention", WIDTH)):
            found |= _linear(f"{at}{kind}.self.query", WIDE, WIDE)
            found |= _linear(f"{at}{kind}.self.key", seen, WIDE) | _linear(f"{at}{kind}.self.value", seen, WIDE)
            found |= _linear(f"{at}{kind}.output.dense", WIDE, WIDE) | _norm(f"{at}{kind}.output.LayerNorm", WIDE)
        found |= _linear(f"{at}intermediate.dense", WIDE, INNER)
        found |= _linear(f"{at}output.dense", INNER, WIDE) | _norm(f"{at}output.LayerNorm", WIDE)
    for number, shape in HEAD.items():
        found |= {f"mlp.layers.{number}.weight": shape, f"mlp.layers.{number}.bias": shape[:1]}
    return found


def tensors(seed=0):
    """Published name → float32 array, of a size at which pictures and texts matter."""
    found = {}
    for name, shape in shapes().items():
        dice = np.random.default_rng((zlib.crc32(name.encode()), seed))
        numbers = dice.normal(size=shape)
        if "norm" in name.lower():
            numbers = 1 + 0.2 * numbers if name.endswith("weight") else 0.2 * numbers
        elif len(shape) > 1 and "embed" not in name:
            numbers *= 2 / np.sqrt(shape[-1])
        found[name] = numbers.astype(np.float32)
    return found


def save(folder: Path, seed=0, *, tokenizer=True):
    """Write ImageReward.pt, with what its file has beside what a reward needs; med_config.json; and a tokenizer."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    unused = {"blip.vision_proj.weight": (8, WIDTH), "blip.vision_proj.bias": (8,), "blip.text_proj.weight": (8, WIDE)}
    whole = tensors(seed) | {name: np.zeros(shape, np.float32) for name, shape in unused.items()}
    whole |= {"blip.text_encoder.embeddings.position_ids": np.arange(POSITIONS)[None]}
    torch.save({name: torch.from_numpy(each) for name, each in whole.items()}, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(config()), encoding="utf-8")
    if tokenizer:
        save_tokenizer(folder)
    return folder


def config():
    """What med_config.json says, as published but for the sizes."""
    return {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": WIDE,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "model_type": "bert",
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "add_type_embeddings": False,
        "vocab_size": VOCABULARY,
        "encoder_width": WIDTH,
        "add_cross_attention": True,
    }


def save_tokenizer(folder: Path):
    """Write a BERT's vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}))
    return folder


def _linear(name, before, after):
    return {f"{name}.weight": (after, before), f"{name}.bias": (after,)}


def _norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
