"""Fetching a model from the Hugging Face hub: the revision pinned to a commit, and nothing but safetensors and text."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from engines.errors import MissingDependency, UnsupportedError
from exporter.models import safetensors_header

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TEXT = (".json", ".txt")


def fetch(repo: str, revision: str | None, *, weights: bool = True, only: Iterable[str] | None = None) -> tuple[Path, str]:
    """Download the components that `model_index.json` names; returns the folder and the commit.

    Args:
        repo: hub id, `owner/name`.
        revision: branch, tag or commit; null is the default branch.
        weights: false takes configs and tokenizers alone.
        only: component folders to take, instead of all in the index.

    Raises:
        UnsupportedError: the hub cannot be reached, has no such model, or the model has pickles only.
        MissingDependency: huggingface_hub is not installed.

    """
    with _reached(repo) as huggingface_hub:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision)
        commit = str(info.sha)
        files = [sibling.rfilename for sibling in info.siblings or ()]
        if only is None:
            only = _components(huggingface_hub.hf_hub_download, repo, commit, files)
        patterns = ["model_index.json", *(file for name in only for file in _wanted(files, name, weights=weights))]
        return Path(huggingface_hub.snapshot_download(repo, revision=commit, allow_patterns=patterns)), commit


def fetch_network(
    repo: str, revision: str | None, component: str, *, weights: bool = True, beside: Iterable[str] = ()
) -> tuple[Path, str]:
    """Download one network, of a whole pipeline or of a repository that holds nothing else; returns the repository's folder.

    Of a pipeline its index and its scheduler's config come along, which tell what the network predicts.

    Args:
        repo: hub id, `owner/name`.
        revision: branch, tag or commit; null is the default branch.
        component: folder of the network in a pipeline, such as `unet`.
        weights: false takes the config alone.
        beside: files that come along where the network stands alone.

    Raises:
        UnsupportedError: the hub cannot be reached, or has no such network there, or it is a pickle.
        MissingDependency: huggingface_hub is not installed.

    """
    with _reached(repo) as huggingface_hub:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision)
        files = [sibling.rfilename for sibling in info.siblings or ()]
        if "model_index.json" in files:
            patterns = ["model_index.json", "scheduler/scheduler_config.json", *_wanted(files, component, weights=weights)]
        else:
            inside = [file for file in files if "/" not in file]
            chosen = safetensors_header.chosen(inside, repo) if weights and "config.json" in inside else ()
            patterns = ["config.json", *beside, *chosen]
        return Path(huggingface_hub.snapshot_download(repo, revision=info.sha, allow_patterns=patterns)), str(info.sha)


def fetch_file(repo: str, revision: str | None, choose: Callable[[list[str]], str]) -> tuple[Path, str]:
    """Download the one file that `choose` picks from a repository's names; returns it and the commit.

    Raises:
        UnsupportedError: the hub cannot be reached, or has no such repository.
        MissingDependency: huggingface_hub is not installed.

    """
    with _reached(repo) as huggingface_hub:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision)
        name = choose([sibling.rfilename for sibling in info.siblings or ()])
        return Path(huggingface_hub.hf_hub_download(repo, name, revision=str(info.sha))), str(info.sha)


@contextlib.contextmanager
def _reached(repo: str) -> Iterator[Any]:
    """Lend the hub's library; its errors become a sentence."""
    try:
        import huggingface_hub  # noqa: PLC0415 - only this source needs it
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependency("huggingface_hub", "compile") from error
    transport = HfHubHTTPError.__mro__[1]  # root of the errors of the HTTP client, which differs between versions
    try:
        yield huggingface_hub
    except (transport, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UnsupportedError(
            f"{repo} could not be fetched from the hub: {str(error).strip().splitlines()[0]}\n"
            "  Check the id, the revision and the network; or name a local folder; or take random weights:\n"
            "    --set model.weights=random --set model.source=<architecture>"
        ) from error


def _components(download: object, repo: str, commit: str, files: list[str]) -> list[str]:
    if "model_index.json" not in files:
        safetensors_header.refuse_pickle(repo, [file for file in files if not any(f.endswith(".safetensors") for f in files)])
        raise UnsupportedError(
            f"{repo} on the hub has no model_index.json, so it is not a diffusers pipeline.\n"
            "  Take a repository in diffusers format, or download its .safetensors file and name that."
        )
    index = json.loads(Path(download(repo, "model_index.json", revision=commit)).read_text(encoding="utf-8"))
    return [name for name, entry in index.items() if isinstance(entry, list) and entry[0] in {"diffusers", "transformers"}]


def _wanted(files: Iterable[str], component: str, *, weights: bool) -> list[str]:
    inside = [file.removeprefix(f"{component}/") for file in files if file.startswith(f"{component}/") and file.count("/") == 1]
    text = [name for name in inside if name.endswith(_TEXT)]
    network = "config.json" in inside
    return [
        f"{component}/{name}" for name in [*text, *(safetensors_header.chosen(inside, component) if weights and network else ())]
    ]
