"""A Ray cluster, joined from here. Ray is imported where it is used."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from engines.errors import MissingDependency, UnsupportedError

#: What --ray takes for a cluster on this machine, which ends with whoever asked for it.
_LOCAL = "local"


def join(address: str, *rooms: str) -> Any:  # noqa: ANN401 - Ray's module
    """Join a cluster, whose processes import what this one does; who joined ends it by `shutdown` of what is returned.

    Args:
        address: `auto` for the cluster that this machine belongs to, the address of another, or `local`.
        rooms: parts of Ray that are needed too, such as `data`.

    Raises:
        MissingDependency: Ray or one of its parts is not installed.
        UnsupportedError: no cluster answers.

    """
    try:
        ray, *_ = [importlib.import_module(name) for name in ("ray", *(f"ray.{room}" for room in rooms))]
    except ImportError as error:
        raise MissingDependency(f"ray[{','.join(rooms)}]" if rooms else "ray", "ray") from error
    where = {} if address == _LOCAL else {"address": address}
    paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}
    try:
        ray.init(**where, runtime_env=paths, log_to_driver=False, include_dashboard=False if address == _LOCAL else None)
    except (ConnectionError, ValueError, RuntimeError) as error:
        told = str(error).splitlines()[0]
        raise UnsupportedError(
            f"--ray {address}: no cluster answers ({told}). Start one with `ray start --head`, name its address, or take "
            f"--ray {_LOCAL}."
        ) from error
    return ray
