"""A network of transformers, opened to look at pictures: whole, on the GPU where there is one, and silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines.errors import UnsupportedError


def opened(kind: str, folder: Path) -> tuple[Any, str]:
    """A network as transformers' class `kind` reads it (such as AutoModel), in float32, and the device that it is on.

    Raises:
        UnsupportedError: the folder lacks weights of it.

    """
    import torch  # noqa: PLC0415 - a sweep's file is read without it
    import transformers  # noqa: PLC0415 - as above

    quiet()
    network, told = getattr(transformers, kind).from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if lacking := sorted(told["missing_keys"]):
        raise UnsupportedError(f"{folder} lacks {len(lacking)} weights of its network, {lacking[0]} among them.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.eval().to(device), device


def quiet() -> None:
    """Let transformers not warn that image processors lack torchvision, nor draw bars of its own while it reads weights."""
    from transformers import logging  # noqa: PLC0415 - as above

    logging.set_verbosity_error()
    logging.disable_progress_bar()
