"""What lies beside the graphs: the pipeline's index, configs, scheduler and tokenizers, as those libraries read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Names of a pipeline's tokenizers and text towers.
TOKENIZERS = ("tokenizer", "tokenizer_2")
_TOWERS = ("text_encoder", "text_encoder_2")


def write(pipeline: Any, folder: Path) -> None:  # noqa: ANN401 - a diffusers pipeline
    """Write everything but the graphs: `model_index.json`, `scheduler/`, tokenizers, and a `config.json` for each graph."""
    # The scheduler was assigned after construction, so that its config stayed as it is: it is not in the index yet.
    pipeline.register_modules(scheduler=pipeline.scheduler)
    pipeline.save_config(folder)
    pipeline.scheduler.save_pretrained(folder / "scheduler")
    for name in TOKENIZERS:
        if getattr(pipeline, name, None) is not None:
            getattr(pipeline, name).save_pretrained(folder / name)
            write_vocabulary(getattr(pipeline, name), folder / name)
    networks = {name: getattr(pipeline, name, None) for name in ("unet", *_TOWERS)}
    for name, network in {**networks, "vae_decoder": pipeline.vae, "vae_encoder": pipeline.vae}.items():
        if network is not None:
            (folder / name).mkdir(exist_ok=True)
            _write_config(network, folder / name)


def write_vocabulary(tokenizer: Any, folder: Path) -> None:  # noqa: ANN401 - transformers'
    """Write a CLIP tokenizer's `vocab.json` and `merges.txt`, which transformers 4 reads; 5 writes them as one file."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"]]
    (folder / "vocab.json").write_text(json.dumps(content["vocab"], ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def _write_config(network: Any, folder: Path) -> None:  # noqa: ANN401 - diffusers' or transformers'
    if hasattr(network, "save_config"):
        network.save_config(folder)
    else:
        network.config.save_pretrained(folder)
