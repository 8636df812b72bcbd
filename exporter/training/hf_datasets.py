"""Pictures and captions of a data set that the `datasets` library knows, on the hub or saved to disk. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import MissingDependency, RecipeError
from engines.plugins import did_you_mean
from exporter.models import locate
from exporter.training.captioned_images import CaptionedImage

if TYPE_CHECKING:
    from exporter.training.options import Dataset


def pictures(asked: Dataset, root: Path, where: str) -> list[CaptionedImage]:
    """Every picture of a split with its caption, in the data set's order.

    Args:
        asked: which data set, split and columns.
        root: the recipe's folder, where a data set that was saved to disk is looked for first.
        where: how a message begins.

    Raises:
        MissingDependency: the library is not installed.
        RecipeError: there is no such data set, split or column, or a caption is not a text.

    """
    rows = _rows(asked, root, where)
    for column in (asked.image, asked.caption):
        if column not in rows.column_names:
            raise RecipeError(f"{where}: {asked.dataset} has no column {column!r}{did_you_mean(column, rows.column_names)}")
    import datasets  # noqa: PLC0415 - `_rows` has told what to install

    if not isinstance(rows.features[asked.image], datasets.Image):
        raise RecipeError(f"{where}: column {asked.image!r} of {asked.dataset} holds no pictures: {rows.features[asked.image]}")
    files = rows.select_columns([asked.image]).cast_column(asked.image, datasets.Image(decode=False))
    found = []
    for index, caption in enumerate(rows[asked.caption]):
        text = caption[0] if isinstance(caption, list) and caption else caption
        if not isinstance(text, str):
            raise RecipeError(f"{where}: row {index} of {asked.dataset} has the caption {caption!r}, which is no text")
        found.append(CaptionedImage(f"{asked.dataset}, {asked.split} {index}", text, _reader(files, index, asked.image)))
    return found


def _rows(asked: Dataset, root: Path, where: str) -> Any:  # noqa: ANN401 - datasets.Dataset
    try:
        import datasets  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingDependency("datasets", "datasets") from error
    saved = locate.first(locate.candidates(asked.dataset, root), locate.holds_saved_data)
    try:
        if saved is None:
            return datasets.load_dataset(asked.dataset, asked.config, split=asked.split, revision=asked.revision)
        loaded = datasets.load_from_disk(str(saved))
    except (ValueError, OSError) as error:
        raise RecipeError(f"{where}: {asked.dataset} cannot be loaded: {error}") from error
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    if asked.split not in loaded:
        known = [str(split) for split in loaded]
        raise RecipeError(f"{where}: {asked.dataset} has no split {asked.split!r}{did_you_mean(asked.split, known)}")
    return loaded[asked.split]


def _reader(rows: Any, index: int, column: str) -> Callable[[], bytes]:  # noqa: ANN401 - datasets.Dataset
    return partial(_bytes, rows, index, column)


def _bytes(rows: Any, index: int, column: str) -> bytes:  # noqa: ANN401 - datasets.Dataset
    entry = rows[index][column]
    return entry["bytes"] if entry["bytes"] is not None else Path(entry["path"]).read_bytes()
