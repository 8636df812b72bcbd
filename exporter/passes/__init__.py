"""One torch pass per file: Part → Part. A pass's options are its constructor, its schema and its cache key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from exporter.part import Part


class Pass(Protocol):
    """Frozen options; the call returns a new part, and may take over the old one's module."""

    def __call__(self, part: Part) -> Part:
        """Transform a part."""
        ...
