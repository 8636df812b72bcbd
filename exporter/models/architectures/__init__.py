"""Named architectures: the component configs of published models without weights, one JSON file each beside this one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.errors import UnsupportedError
from engines.plugins import did_you_mean

FOLDER = Path(__file__).parent
#: Entries of a file that are about the architecture and not a component's config.
ABOUT = ("about", "hub", "parameters")


def names() -> list[str]:
    """Names of all architectures, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    """One file as it is, shared pieces not yet filled in.

    Raises:
        UnsupportedError: there is no architecture of that name.

    """
    if name not in names():
        raise UnsupportedError(f"no architecture named {name!r}{did_you_mean(name, names())}")
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def configs(name: str) -> dict[str, Mapping[str, Any]]:
    """Component → config, `model_index` included.

    A component written `{"$use": "other", …}` takes that architecture's component of the same name and changes the fields
    that follow; a field of null stays null, because null is a value in diffusers' configs.
    """
    return {key: _resolved(name, key) for key in read(name) if key not in ABOUT}


def _resolved(name: str, component: str) -> dict[str, Any]:
    config = dict(read(name)[component])
    other = config.pop("$use", None)
    return config if other is None else _resolved(other, component) | config


def parameters(name: str) -> Mapping[str, int]:
    """Component → number of parameters, as published or counted; what recognises a single file."""
    return read(name).get("parameters", {})


def hub(name: str) -> str | None:
    """Hub id from which the architecture's tokenizers come when a single file is all that there is."""
    return read(name).get("hub")


def of_hub(source: str) -> str | None:
    """Name the architecture of a model on the hub; of several with tokenizers from there, the one that others refer to."""
    same = [name for name in names() if hub(name) == source]
    return next((name for name in same if "$use" not in read(name)["unet"]), same[0] if same else None)
