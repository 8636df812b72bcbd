"""Shards drawn by actors of a Ray cluster, through Ray Data. Ray is imported where it is used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from engines import ray_cluster
from engines.errors import MachineError, UnsupportedError
from engines.picture_set.drawer import Drawer
from engines.picture_set.shards import Shard


def draw(
    address: str, shards: Sequence[Shard], arguments: Sequence[Any], *, cpus: float = 1, gpus: float = 0
) -> Iterator[dict[str, Any]]:
    """Have shards drawn, each by whichever actor is free; an actor that dies is replaced, and what it was at begun again.

    Args:
        address: `auto` for the cluster that this machine belongs to, the address of another, or `local`.
        shards: what is drawn.
        arguments: of a `Drawer`.
        cpus: that an actor has; so many actors there are as have room.
        gpus: as cpus; a part of one is shared.

    Yields:
        A row of `Drawer` for each shard, in the order in which they are done.

    Raises:
        MissingDependency: Ray or Ray Data is not installed.
        UnsupportedError: no cluster answers, or no machine of it has so much.
        MachineError: actors died again and again.

    """
    ray = ray_cluster.join(address, "data")
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        rows = ray.data.from_items([asdict(shard) for shard in shards], override_num_blocks=len(shards))
        needs = {"num_cpus": cpus, **({"num_gpus": gpus} if gpus else {})}
        room = _room(ray.nodes(), cpus, gpus)
        if not room:
            asked = f"{cpus:g} CPUs{f' and {gpus:g} GPUs' if gpus else ''}"
            raise UnsupportedError(f"{asked} are asked for, and no machine of the cluster has them. Ask for less.")
        drawn = rows.map(Drawer, fn_constructor_args=tuple(arguments), concurrency=(1, min(room, len(shards))), **needs)
        yield from drawn.iter_rows()
    except importlib.import_module("ray.exceptions").RayError as error:
        told = str(error).strip().splitlines()[-1]
        raise MachineError(f"the cluster gave up: {told}\n  What was finished is kept; begin again to go on.") from error
    finally:
        ray.shutdown()


def _room(nodes: Sequence[Any], cpus: float, gpus: float) -> int:
    """How many actors the machines have room for."""

    def actors(has: Any) -> int:  # noqa: ANN401 - Ray's
        rooms = [has.get(name, 0) / each for name, each in (("CPU", cpus), ("GPU", gpus)) if each]
        return int(min(rooms)) if rooms else 1

    return sum(actors(node["Resources"]) for node in nodes if node["Alive"])
