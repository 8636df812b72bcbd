"""A process with a bundle's engines open, which draws shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.errors import T2IError
from engines.images.png import encode
from engines.pipeline import Pipeline

#: Pictures whose latents are in memory at once.
_AT_ONCE = 8


class Drawer:
    """Draws shards as plain data: rows in, rows out. An error of ours goes out as its words, since it may come from far.

    Args:
        bundle: its folder, at the same path on every machine.
        backend: whose engines; None for the bundle's first.
        wishes: arguments of `Pipeline.generate` but prompts and seed.

    """

    def __init__(self, bundle: str, backend: str | None, wishes: Mapping[str, Any]) -> None:
        self._bundle, self._backend, self._wishes = bundle, backend, dict(wishes)
        self._pipeline: Pipeline | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Draw a row of `number`, `prompts` and `seed`: `number`, `pictures` as PNG, and `error`, empty where there is none."""
        try:
            return {"number": row["number"], "pictures": self._drawn(list(row["prompts"]), int(row["seed"])), "error": ""}
        except T2IError as error:
            return {"number": row["number"], "pictures": [], "error": str(error)}

    def _drawn(self, prompts: list[str], seed: int) -> list[bytes]:
        if self._pipeline is None:
            self._pipeline = Pipeline.from_pretrained(self._bundle, backend=self._backend)
        found = list[bytes]()
        for start in range(0, len(prompts), _AT_ONCE):
            some = prompts[start : start + _AT_ONCE]
            found += [encode(each, "PNG") for each in self._pipeline.generate(some, seed=seed + start, **self._wishes)]
        return found
