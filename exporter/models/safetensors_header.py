"""Safetensors files without torch: which of a folder's files hold a component, and what is inside one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engines.errors import UnsupportedError

#: Longest header that the format allows, in bytes.
_LONGEST = 100_000_000
_WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors")
_VARIANTS = (None, "fp16", "bf16", "non_ema")  # best first; one is enough
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def chosen(names: Iterable[str], component: str) -> list[str]:
    """From the file names of a component's folder, those that hold its weights: one variant, with all its shards.

    Raises:
        UnsupportedError: there are no weights, or only formats that can run code when they are opened.

    """
    names = sorted(names)
    for variant in _VARIANTS:
        if found := [name for name in names if (match := _WEIGHTS.fullmatch(name)) and match[1] == variant]:
            return found
    refuse_pickle(component, [name for name in names if name.endswith(_PICKLES)])
    raise UnsupportedError(
        f"{component} has no weights: expected diffusion_pytorch_model.safetensors or model.safetensors.\n"
        "  Save it with save_pretrained, or take random weights (model.weights: random)."
    )


def refuse_pickle(where: str, names: Iterable[str]) -> None:
    """Raise UnsupportedError where there are names of pickles."""
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        raise UnsupportedError(
            f"{where}: weights only as a pickle ({', '.join(pickles)}), which can run any code when it is opened.\n"
            "  Convert it where you trust it: load the model in diffusers, then save_pretrained(folder, safe_serialization=True)."
        )


def shapes(file: Path) -> Mapping[str, tuple[int, ...]]:
    """Tensor name → shape.

    Raises:
        UnsupportedError: not a safetensors file, or cut short.

    """
    header, start = _header(file)
    try:
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        found = {name: tuple(map(int, entry["shape"])) for name, entry in tensors.items()}
    except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
        raise UnsupportedError(_damaged(file, "its header lacks shapes or offsets")) from error
    if end + start != (size := file.stat().st_size):
        raise UnsupportedError(_damaged(file, f"it should have {end + start} bytes and has {size}"))
    return found


def metadata(file: Path) -> Mapping[str, str]:
    """Words about the file that its writer put into it.

    Raises:
        UnsupportedError: not a safetensors file.

    """
    header, _ = _header(file)
    words = header.get("__metadata__") if isinstance(header, dict) else None
    return {str(key): str(value) for key, value in words.items()} if isinstance(words, dict) else {}


def _header(file: Path) -> tuple[Any, int]:
    """Parse the header; returns it and the byte where data begins."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= min(_LONGEST, size - 8):
            raise UnsupportedError(_damaged(file, f"its header says {length} bytes, the file has {size}"))
        try:
            return json.loads(stream.read(length)), length + 8
        except (ValueError, RecursionError) as error:
            raise UnsupportedError(_damaged(file, "its header is not JSON")) from error


def elements(tensors: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    """Numbers held by the tensors whose name starts with `prefix`."""
    return sum(math.prod(shape) for name, shape in tensors.items() if name.startswith(prefix))


def _damaged(file: Path, how: str) -> str:
    return f"{file} is not a whole safetensors file: {how}.\n  Download or copy it again."
