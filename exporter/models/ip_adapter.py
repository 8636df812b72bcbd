"""An IP-Adapter at hand, and how a UNet's config says that it has one. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

#: What diffusers says of a UNet that has an adapter.
FIELD, VALUE = "encoder_hid_dim_type", "ip_image_proj"


@dataclass(frozen=True)
class IpAdapter:
    """An IP-Adapter at hand.

    Attributes:
        file: safetensors.
        shapes: of its tensors, by name.

    """

    file: Path
    shapes: Mapping[str, tuple[int, ...]]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        with self.file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def having(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a UNet that has an adapter."""
    return {**config, FIELD: VALUE}


def without(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a UNet as it is before it has an adapter."""
    return {**config, FIELD: None}
