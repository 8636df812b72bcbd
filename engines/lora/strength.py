"""Alpha over rank, where a LoRA's trainer keeps alpha beside the tensors: peft's config, in the file or next to it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from engines.errors import UnsupportedError

#: What peft writes beside its file, and diffusers into its own.
PEFT, INSIDE = "adapter_config.json", "lora_adapter_metadata"
_PATTERNS = ("alpha_pattern", "rank_pattern")
#: What `peft_type` is of files that are read, and where such a config keeps alpha: in LoHa's and LoKr's over its own rank.
_ALPHA = {"LORA": "lora_alpha", "LOHA": "alpha", "LOKR": "alpha"}
#: Starts of a training (`init_lora_weights`) that change the model's own weights, so that what is learned fits no others.
_CHANGES = re.compile(r"(pissa|olora|corda|loftq|lora_ga).*")
#: peft's name of the file that the config beside it is about.
PEFT_WEIGHTS = "adapter_model.safetensors"


def config_of(file: Path, metadata: Mapping[str, str]) -> str:
    """What a trainer wrote about alpha and rank, as JSON; empty where it wrote nothing.

    Raises:
        UnsupportedError: it cannot be read.

    """
    beside = file.with_name(PEFT)
    text = metadata.get(INSIDE) or (beside.read_text(encoding="utf-8") if file.name == PEFT_WEIGHTS and beside.is_file() else "")
    _refuse(text, file)
    return text


def said(config: str, component: str) -> Mapping[str, Any]:
    """What a config says of one component."""
    content: dict[str, Any] = json.loads(config) if config else {}
    own = {key.removeprefix(f"{component}."): value for key, value in content.items() if key.startswith(f"{component}.")}
    return own or {key: value for key, value in content.items() if "." not in key}


def strength(config: str, component: str, layer: str, rank: int) -> float | None:
    """Alpha over rank as peft wrote it; None where it did not, and the file has it, or means 1.

    Args:
        config: of `config_of`.
        component: network.
        layer: of it.
        rank: of the layer's factors in the file, 0 for a way of changing it that has no single one.

    """
    own = said(config, component)
    key = _ALPHA[own.get("peft_type") or "LORA"]
    if key == "alpha":
        rank = int(_of_layer(own, "r", "rank_pattern", layer, 8))
    elif key not in own or not rank:
        return None
    return float(_of_layer(own, key, "alpha_pattern", layer, 8)) / (math.sqrt(rank) if own.get("use_rslora") else rank)


def _of_layer(own: Mapping[str, Any], key: str, pattern: str, layer: str, silent: float) -> Any:  # noqa: ANN401 - JSON
    """What a config says of one layer: by the first pattern that fits its name, else of all."""
    patterns: Mapping[str, Any] = own.get(pattern) or {}
    return next((value for each, value in patterns.items() if re.fullmatch(rf"(.*\.)?({each})", layer)), own.get(key, silent))


def _refuse(text: str, file: Path) -> None:
    """Raise UnsupportedError where what peft or diffusers wrote about alpha and rank cannot be read."""
    try:
        content = cast("dict[str, Any]", json.loads(text) if text else {})
        names = {key: str(key).rpartition(".")[2] for key, _ in content.items()}
        patterns = [content[key] for key, name in names.items() if name in _PATTERNS and content[key] is not None]
        alphas = [content[key] for key, name in names.items() if name in {"lora_alpha", "alpha"}]
        ranks = [1 / int(content[key]) for key, name in names.items() if name == "r"]
        kinds = {str(content[key]) for key, name in names.items() if name == "peft_type" and content[key]}
        starts = {str(content[key]) for key, name in names.items() if name == "init_lora_weights"}
        for pattern in (key for each in patterns for key in each):
            re.compile(pattern)
        _ = [float(each) for each in (*alphas, *ranks, *(value for each in patterns for value in each.values()))]
    except (ValueError, TypeError, AttributeError, RecursionError, ArithmeticError, re.error) as error:
        raise UnsupportedError(
            f"{file}: what its trainer wrote of alpha and rank ({PEFT}, or {INSIDE} inside) cannot be read: {error}.\n"
            "  Take the file as it was published, or save it again with peft."
        ) from error
    if others := sorted(kinds - _ALPHA.keys()):
        raise UnsupportedError(f"{file} is in a format that is not read, {others[0]} of peft.\n  LORA, LOHA and LOKR are.")
    if changing := sorted(filter(_CHANGES.fullmatch, starts)):
        raise UnsupportedError(
            f"{file}: its config says init_lora_weights: {changing[0]}, a start that changed the model's own weights before the "
            "training, so that what was learned is right for those alone.\n  Save it once more where it was trained, with peft's "
            "save_pretrained(FOLDER, path_initial_model_for_weight_conversion=START), which writes the whole difference."
        )
