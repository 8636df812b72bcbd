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


def strength(config: str, component: str, layer: str, rank: int) -> float:
    """Alpha over rank as peft wrote it; 1 where it did not, and the file has it, or means 1."""
    own = said(config, component)
    if "lora_alpha" not in own:
        return 1.0
    patterns: Mapping[str, Any] = own.get("alpha_pattern") or {}
    alpha = next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", layer)), own["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if own.get("use_rslora") else rank)


def _refuse(text: str, file: Path) -> None:
    """Raise UnsupportedError where what peft or diffusers wrote about alpha and rank cannot be read."""
    try:
        content = cast("dict[str, Any]", json.loads(text) if text else {})
        patterns = [value for key, value in content.items() if key.endswith("alpha_pattern") and value is not None]
        alphas = [value for key, value in content.items() if key.endswith("lora_alpha")]
        for pattern in (key for each in patterns for key in each):
            re.compile(pattern)
        _ = [float(each) for each in (*alphas, *(value for each in patterns for value in each.values()))]
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, re.error) as error:
        raise UnsupportedError(
            f"{file}: what its trainer wrote of alpha and rank ({PEFT}, or {INSIDE} inside) cannot be read: {error}.\n"
            "  Take the file as it was published, or save it again with peft."
        ) from error
