"""Stage ``tokenizer``: a byte-level BPE vocabulary in CLIP's format.

Every word of a caption is one token; any other text falls apart into bytes and
common fragments, so it can still be encoded.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import CLIPTokenizer

from tools.demo import captions

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 32
END_OF_WORD = "</w>"


def byte_characters() -> list[str]:
    """The printable character that stands for each of the 256 bytes.

    Byte-level BPE writes printable Latin-1 bytes as themselves and moves the
    others to code points from 256 on; listed printable first, as CLIP does.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(moved)]


def _apply(symbols: list[str], merge: tuple[str, str]) -> list[str]:
    """Joins each occurrence of a pair, from the left."""
    joined: list[str] = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) == merge:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def learn_merges(vocabulary: list[str]) -> list[tuple[str, str]]:
    """Merges, in rank order, that make each word a single token.

    A word that is whole under the merges so far stays so, because a later
    merge has a lower rank than every one used to build it.
    """
    merges: list[tuple[str, str]] = []
    for word in vocabulary:
        symbols = [*word[:-1], word[-1] + END_OF_WORD]
        for merge in merges:
            symbols = _apply(symbols, merge)
        while len(symbols) > 1:
            merges.append((symbols[0], symbols[1]))
            symbols = _apply(symbols, merges[-1])
    return merges


def write(folder: Path, pad: str) -> None:
    """Writes a tokenizer in CLIP's file format.

    Args:
        folder: Receives vocab.json, merges.txt and the configuration files.
        pad: The padding token; SDXL pads its first encoder's text with the
            end token and its second's with "!".

    """
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = byte_characters()
    merges = learn_merges(captions.words())
    tokens = [*alphabet, *(c + END_OF_WORD for c in alphabet), *(a + b for a, b in merges)]
    tokens += [START, END]
    ids = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    specials = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        **specials,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(specials, indent=2) + "\n")


def load(folder: Path) -> CLIPTokenizer:
    """Loads a tokenizer that ``write`` wrote."""
    return CLIPTokenizer.from_pretrained(folder)


def train(folder: Path) -> None:
    """Writes both tokenizers below a stage folder."""
    write(folder / "tokenizer", END)
    write(folder / "tokenizer_2", "!")
