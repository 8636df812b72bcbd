"""Safetensors files without torch: which of a folder's files hold a component, and what is inside one."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from engines.errors import UnsupportedError

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


def files(folder: Path) -> tuple[Path, ...]:
    """Files of a component's folder that hold its weights; raises as `chosen` does."""
    return tuple(folder / name for name in chosen((file.name for file in folder.iterdir()), str(folder)))


def refuse_pickle(where: str, names: Iterable[str]) -> None:
    """Raise UnsupportedError where there are names of pickles."""
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        raise UnsupportedError(
            f"{where}: weights only as a pickle ({', '.join(pickles)}), which can run any code when it is opened.\n"
            "  Convert it where you trust it: load the model in diffusers, then save_pretrained(folder, safe_serialization=True)."
        )


@dataclass(frozen=True)
class Header:
    """What a file says before its data: tensor → shape, tensor → type (`F32`, `F8_E4M3` …), and its writer's words."""

    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]
    metadata: Mapping[str, str]


def header(file: Path) -> Header:
    """Read a file's header.

    Raises:
        UnsupportedError: not a safetensors file, or cut short.

    """
    status = file.stat()
    return _header(file, status.st_size, status.st_mtime_ns)


def shapes(file: Path) -> Mapping[str, tuple[int, ...]]:
    """Tensor name → shape; raises as `header` does."""
    return header(file).shapes


def metadata(file: Path) -> Mapping[str, str]:
    """Words about the file that its writer put into it; raises as `header` does."""
    return header(file).metadata


def numbers(file: Path, name: str) -> list[float]:
    """A small tensor's values, flat; NaN where its type is one that numpy has not."""
    with _opened(file) as handle:
        try:
            return [float(value) for value in handle.get_tensor(name).reshape(-1)]
        except TypeError:
            return [math.nan]


@functools.lru_cache(maxsize=64)
def _header(file: Path, _size: int, _changed: int) -> Header:
    with _opened(file) as handle:
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 - not a dict
        found = {name: tuple(each.get_shape()) for name, each in slices.items()}
        return Header(found, {name: str(each.get_dtype()) for name, each in slices.items()}, dict(handle.metadata() or {}))


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="np") as handle:  # of torch's it would load the library
            yield handle
    except (SafetensorError, OSError) as error:
        raise UnsupportedError(f"{file} is not a whole safetensors file: {error}.\n  Download or copy it again.") from error
