"""Where a module of a cut network stood in the network that it was cut from."""

from __future__ import annotations

from collections.abc import Mapping

#: Prefix of a module's name in the student → prefix in the source.
Moved = Mapping[str, str]


def came_from(name: str, moved: Moved) -> str:
    """Name in the teacher of the module that the student's module was; `moved` maps prefixes, the longest counts."""
    prefix = max((prefix for prefix in moved if f"{name}.".startswith(prefix)), key=len, default="")
    return f"{moved.get(prefix, '')}{f'{name}.'.removeprefix(prefix)}"[:-1]
