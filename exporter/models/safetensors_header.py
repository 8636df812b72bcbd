"""Safetensors files without torch: which of a folder's files hold a component, and what is inside one."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import UnsupportedError

#: One file, or a shard: a variant stands before the shard's number (as written today) or behind it (as once).
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model|pytorch_model)(?:\.(?P<variant>[\w-]+?))?(?:-(?P<number>\d+)-of-(?P<count>\d+))?"
    r"(?:\.(?P<behind>\w+))?\.safetensors"
)
_VARIANTS = ("", "fp16", "bf16", "fp32", "non_ema")  # best first; one is enough
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def chosen(names: Iterable[str], component: str, variant: str | None = None) -> list[str]:
    """From the file names of a component's folder, those that hold its weights: one variant, with all its shards.

    Args:
        names: of the files.
        component: for the message.
        variant: the one to take if it is there; else, and of None, the first of the usual ones, or the only one.

    Raises:
        UnsupportedError: there are no weights, a shard is missing, or there are only formats that can run code when opened.

    """
    names = sorted(names)
    sets: dict[str, dict[tuple[int, int], str]] = {}
    for name in names:
        if match := _WEIGHTS.fullmatch(name):
            place = (int(match["count"] or 1), int(match["number"] or 1))
            sets.setdefault(match["variant"] or match["behind"] or "", {}).setdefault(place, name)
    order = [*([variant] if variant is not None else ()), *_VARIANTS, *(sets if len(sets) == 1 else ())]
    if (taken := next((each for each in order if each in sets), None)) is not None:
        return _whole(sets[taken], component)
    if sets:
        raise UnsupportedError(
            f"{component} has weights of several variants: {', '.join(sets)}.\n  Set model.variant to one of them."
        )
    refuse_pickle(component, [name for name in names if name.endswith(_PICKLES)])
    raise UnsupportedError(
        f"{component} has no weights: expected diffusion_pytorch_model.safetensors or model.safetensors.\n"
        "  Download or copy it whole; or take random weights (model.weights: random)."
    )


def _whole(shards: Mapping[tuple[int, int], str], component: str) -> list[str]:
    """All shards of the smallest complete set."""
    counts = sorted({count for count, _ in shards})
    for count in counts:
        if all((count, number) in shards for number in range(1, count + 1)):
            return [shards[count, number] for number in range(1, count + 1)]
    count, example = counts[0], shards[min(shards)]
    missing = [number for number in range(1, count + 1) if (count, number) not in shards]
    listed = ", ".join(re.sub(r"-\d+-of-", f"-{number:05}-of-", example) for number in missing)
    raise UnsupportedError(
        f"{component} lacks {len(missing)} of {count} shards: {listed}.\n  Download or copy the missing files."
    )


def files(folder: Path, variant: str | None = None) -> tuple[Path, ...]:
    """Files of a component's folder that hold its weights; raises as `chosen` does, and where its index names others."""
    names = [file.name for file in folder.iterdir()]
    found = chosen(names, str(folder), variant)
    for name in (name for name in names if re.fullmatch(r".*\.safetensors\.index(\.\w+)?\.json", name)):
        listed = sorted(set(read_json(folder / name).get("weight_map", {}).values()))
        if len(found) > 1 and set(listed) & set(found) and (missing := [each for each in listed if each not in names]):
            raise UnsupportedError(
                f"{folder / name} speaks of files that are not there: {', '.join(missing)}.\n  Download or copy them too."
            )
    return tuple(folder / name for name in found)


def read_json(file: Path) -> dict[str, Any]:
    """Read one config.

    Raises:
        UnsupportedError: it is not there, or not JSON.

    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnsupportedError(
            f"{file} cannot be read: {error.strerror}.\n  The folder is no whole diffusers pipeline; download or copy it again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UnsupportedError(f"{file} is not JSON: {error}.\n  Download or copy it again.") from error
    if not isinstance(found, dict):
        raise UnsupportedError(f"{file} holds no mapping.\n  Download or copy it again.")
    return found


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
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - a bundle is checked without it

    try:
        with safe_open(file, framework="np") as handle:  # of torch's it would load the library
            yield handle
    except (SafetensorError, OSError) as error:
        raise UnsupportedError(f"{file} is not a whole safetensors file: {error}.\n  Download or copy it again.") from error
