"""Which components of a pipeline's folder are looked at, and which file of one says what it is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

#: What networks, and what makes ids of texts, are called in every pipeline.
NETWORKS = re.compile(r"unet|transformer|vae|text_encoder(_\d)?")
TOKENIZERS = re.compile(r"tokenizer(_\d)?")
#: What has the times of the steps, or says how much noise is in something else.
SCHEDULERS = re.compile(r"(\w+_)?scheduler")
#: The config of what makes ids of texts, and of what makes pixels of images alone.
TOKENIZER, _PROCESSOR = "tokenizer_config.json", "preprocessor_config.json"
#: Networks and tokenizers that diffusers keeps beside a pipeline, whose folder the index then names instead of diffusers: class →
#: module.
BESIDE: Mapping[str, str] = {
    "StableUnCLIPImageNormalizer": "stable_diffusion",
    "MultilingualCLIP": "kandinsky",
    **dict.fromkeys(("PaellaVQModel", "WuerstchenDiffNeXt", "WuerstchenPrior"), "deprecated.wuerstchen"),
    "ChatGLMModel": "kolors.text_encoder",
    "ChatGLMTokenizer": "kolors.tokenizer",
    "LDMBertModel": "latent_diffusion",
}
#: The config of what guides by itself.
_GUIDER = "guider_config.json"
#: And of a scheduler that is a stage's own.
_SCHEDULER = "scheduler_config.json"


def of(inside: Path, name: str) -> str:
    """Name of the file that a component's config is in: a network's, but for what makes ids of texts, or pixels of images."""
    if TOKENIZERS.fullmatch(name):
        return TOKENIZER
    if SCHEDULERS.fullmatch(name):
        return "scheduler_config.json"
    return next((file for file in ("config.json", TOKENIZER, _PROCESSOR, _GUIDER) if (inside / file).exists()), "config.json")


def of_diffusers(index: Mapping[str, Any]) -> dict[str, Any]:
    """An index in which networks that diffusers keeps beside a pipeline are diffusers'."""

    def own(entry: Any) -> Any:  # noqa: ANN401 - whatever somebody wrote there
        folders = {name: module.removeprefix("deprecated.").partition(".")[0] for name, module in BESIDE.items()}
        beside = isinstance(entry, list) and entry in ([folder, name] for name, folder in folders.items())
        return ["diffusers", entry[1]] if beside else entry

    return {name: own(entry) for name, entry in index.items()}


def further(component: str) -> Iterator[str]:
    """Under which names diffusers saves the networks beside the first where a component is several, however many."""
    return (f"{component}_{number}" for number in itertools.count(1))


def is_read(index: Mapping[str, Any], name: str, folder: Path, libraries: Collection[str]) -> bool:
    """Whether a component is looked at: those that every pipeline has, and whatever else lies there of a known library."""
    if NETWORKS.fullmatch(name) or TOKENIZERS.fullmatch(name) or name == "scheduler":
        return True
    entry = index[name]
    known = isinstance(entry, list) and bool(entry) and entry[0] in libraries
    return known and (folder / name / of(folder / name, name)).is_file()
