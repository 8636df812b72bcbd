"""The one look-up: beside the recipe, in the working directory, else by name among the architectures or on the hub.

What is found must hold what is looked for. A folder that only has the name, such as a bundle's, does not stand in the way.
Imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from engines.bundle import MANIFEST
from engines.errors import RecipeError
from engines.plugins import did_you_mean
from exporter.models import hub

_CONFIGS = ("model_index.json", "config.json")
#: As the `datasets` library saves one split or several.
_SAVED = ("dataset_info.json", "dataset_dict.json")
#: Endings of weights: under a name with one a file is meant, never a repository of the hub.
_WEIGHTS = (".safetensors", ".ckpt", ".pt")


def holds_model(place: Path) -> bool:
    """Whether a path is a .safetensors file, or a folder of a pipeline, a network or such files."""
    if os.path.isfile(place):  # noqa: PTH113 - answers where this user may not look, or a name is no file's; pathlib's raises
        return place.suffix == ".safetensors"
    names = _names(place)
    return any(name in _CONFIGS or name.endswith(".safetensors") for name in names)


def holds_saved_data(place: Path) -> bool:
    """Whether a path is a folder of `Dataset.save_to_disk`."""
    return any(name in _SAVED for name in _names(place))


def candidates(name: str, root: Path) -> tuple[Path, ...]:
    """Paths that a name may mean, in the order in which they are asked: beside the recipe (`root`), in the working directory."""
    own = Path(os.path.expanduser(name))  # noqa: PTH111 - pathlib's raises for a user who is not there
    return root / own, own


def first(places: Iterable[Path], holds: Callable[[Path], bool]) -> Path | None:
    """The first path that holds what is looked for."""
    return next((place for place in places if holds(place)), None)


def find(name: str, root: Path, where: str, names: Sequence[str] = (), *, folder_only: bool = False) -> Path | None:
    """Find a model, a network or a LoRA by the name that a recipe gives.

    Args:
        name: a path, one of `names`, or a hub id.
        root: the recipe's folder.
        where: the recipe's line, for the message.
        names: architectures, where one can stand there.
        folder_only: a file cannot stand there, for the message.

    Returns:
        The file or folder; None where `name` is one of `names`, or a hub id. A path that holds no model is returned only where
        the name can mean nothing else: whoever opens it says what is missing.

    Raises:
        RecipeError: it is none of all that.

    """
    places = candidates(name, root)
    if found := first(places, holds_model):
        return found
    if name in names:
        return None
    on_hub = bool(hub.ID.fullmatch(name)) and not name.endswith(_WEIGHTS)
    if found := first(places, lambda place: os.path.exists(place) and not (on_hub and is_bundle(place))):  # noqa: PTH110
        return found
    if on_hub:
        return None
    what = "a folder" if folder_only else "a file or folder"
    looked = f"(looked in {root} and {Path.cwd()})"
    other = f", nor an architecture{did_you_mean(name, list(names))}" if names else ""
    meant = _meant(name)
    raise RecipeError(
        f"{where}: {name!r} is neither {what} {looked}, nor a hub id (owner/name){f'; {meant}' if meant else other}"
    )


def _meant(name: str) -> str:
    """What to write instead of an address, of an id with a revision, or of a place that only a shell reads."""
    if page := re.fullmatch(r"(?:hf://|https?://(?:www\.)?(?:huggingface\.co|hf\.co)/)([\w.-]+/[\w.-]+)(?:/.*)?", name):
        return f"write the hub id: {page[1]}"
    if "://" in name:
        return "download the file, and name that"
    if name.startswith("~"):
        return f"write the place out: {os.path.expanduser(name)}"  # noqa: PTH111 - pathlib's raises for a user whom nobody knows
    repo, _, revision = name.partition("@")
    return f"write {repo}, and revision: {revision} beside it" if revision and hub.ID.fullmatch(repo) else ""


def network(
    name: str, revision: str | None, root: Path, where: str, component: str, beside: Sequence[str], *, weights: bool = True
) -> tuple[Path, dict[str, str]]:
    """The folder of a network that stands alone, and where it is from: beside `root`, in the working directory, or on the hub.

    Without `weights` only what lies beside them is fetched.

    Raises:
        RecipeError: there is nothing under that name.
        UnsupportedError: the hub has none, or cannot be reached.

    """
    if (place := find(name, root, where, folder_only=True)) is not None:
        return place, {"source": name}
    fetched = hub.fetch_network(name, revision, component, weights=weights, beside=beside)
    return fetched.place, {"source": name, "revision": fetched.commit}


def is_bundle(place: Path) -> bool:
    """Whether a path is a bundle's folder."""
    return os.path.isfile(place / MANIFEST)  # noqa: PTH113


def passed_over(name: str, root: Path) -> str:
    """Words on a path of that name which holds no model, for a message about what the name was taken for instead."""
    there = first(candidates(name, root), os.path.exists)
    if there is None:
        return ""
    kind = "a bundle" if is_bundle(there) else "no model"
    return f" ({there.absolute()} holds {kind})"


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) and os.access(folder, os.R_OK) else []  # noqa: PTH112, PTH208
