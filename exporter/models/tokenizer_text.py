"""The file of a tokenizer of transformers, by which the run time reads texts without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from exporter.models import sentencepiece_tokenizer


def backend_of(source: Any) -> Any:  # noqa: ANN401 - transformers', and the library's own class
    """The `tokenizers` one that it has; of one that is Python code the one that reads the same.

    Raises:
        UnsupportedError: there is none.

    """
    own = getattr(source, "backend_tokenizer", None)
    return sentencepiece_tokenizer.converted(source) if own is None else own


def padded(source: Any, length: int, *, special: bool = True, first: Sequence[Any] = ()) -> str:  # noqa: ANN401 - transformers'
    """Text of a `tokenizers` JSON file that pads to a length, on the source's own side, and cuts nothing off.

    Args:
        source: as transformers has it.
        length: in ids.
        special: whether it puts ids around a text, such as that of its beginning.
        first: how it cuts a text before all else, steps as the file has them.

    """
    backend = backend_of(source)
    content = json.loads(backend.to_str())
    if first:
        steps = [*first, *([content["pre_tokenizer"]] if content["pre_tokenizer"] else [])]
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    own = type(backend).from_str(json.dumps(content if special else content | {"post_processor": None}))
    own.no_truncation()
    own.enable_padding(length=length, pad_id=source.pad_token_id, pad_token=source.pad_token, direction=source.padding_side)
    return own.to_str()
