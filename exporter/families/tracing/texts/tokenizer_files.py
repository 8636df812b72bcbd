"""A pipeline's tokenizer as a bundle has it: its entry in the manifest, and the text of its `tokenizers` JSON file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.manifest import Tokenizer
from exporter.models.tokenizer_text import padded

if TYPE_CHECKING:
    from exporter.families.tracing.texts.readings import Reading


def written(name: str, reading: Reading, source: Any) -> tuple[Tokenizer, str]:  # noqa: ANN401 - transformers'
    """Entry and text, which says how it pads.

    Args:
        name: of the bundle's tokenizer.
        reading: how the pipeline has texts read by it.
        source: as transformers has it.

    """
    entry = Tokenizer(
        file=f"tokenizers/{name}.json", length=reading.most, feeds=f"{name}_ids",
        mask=f"{name}_mask" if reading.masked else None,
        before=reading.before, after=reading.after, lower=reading.lower, empty=reading.empty,
        open=reading.entry(name), pictures=reading.pictures,
    )  # fmt: skip
    first = reading.quotes.steps if reading.quotes else ()
    return entry, padded(source, reading.most, special=reading.special, first=first)
