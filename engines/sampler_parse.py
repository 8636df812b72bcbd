"""What the user writes to have another sampler than a compiled one: `NAME` or `NAME:key=value,key=value`."""

from __future__ import annotations

from pathlib import Path

from engines import plugins
from engines.errors import UnsupportedError
from engines.noise_process import Continuous
from engines.samplers import Player


def names() -> list[str]:
    """Names of the samplers that can be asked for; they solve a process."""
    return [name for name in plugins.names("samplers") if _solves(plugins.load("samplers", name))]


def solver(wish: str, process: Path | None) -> Player:
    """The sampler that is asked for, over the bundle's process.

    Args:
        wish: as the user writes it.
        process: file of the bundle, or None where it has none.

    Raises:
        UnsupportedError: no such sampler or option, or a value out of bounds; says what there is.
        BundleError: the file is damaged.

    """
    name, colon, text = wish.partition(":")
    if name not in (known := names()):
        raise UnsupportedError(f"no sampler is named {name!r}{plugins.did_you_mean(name, known)}")
    kind: type[Continuous] = plugins.load("samplers", name)
    options: dict[str, str] = {}
    takes = [field for field in kind.model_fields if field != "process"]
    for assignment in text.split(",") if colon else ():
        key, equals, value = (part.strip() for part in assignment.partition("="))
        if not (key and equals and value) or key in options:
            twice = " once" if key in options else ""
            raise UnsupportedError(f"sampler {wish!r}: write {name}:key=value,key=value, every key{twice}.\n{kind.options()}")
        if key not in takes:
            raise UnsupportedError(f"sampler {name} has no option {key!r}{plugins.did_you_mean(key, takes)}\n{kind.options()}")
        options[key] = value
    if process is None:
        raise UnsupportedError(
            f"this bundle holds no noise process, which the sampler {name} solves: its scheduler is not variance-preserving "
            "(no alphas_cumprod), or an older program built it; then: t2iexport build RECIPE"
        )
    return kind.load(process, **options)


def _solves(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Continuous)
