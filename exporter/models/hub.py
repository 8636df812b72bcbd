"""Fetching a model from the Hugging Face hub: the revision pinned to a commit, and nothing but safetensors and text.

Where the hub is not reached, or `HF_HUB_OFFLINE=1` says that it shall not be, the commit that its cache holds is taken.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.disk import refusal
from engines.errors import MissingDependency, UnsupportedError
from exporter.models import component_files, downloads, safetensors_header

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TEXT = (".json", ".txt")
#: Status of an answer to who asks too often.
_OFTEN = 429


@dataclass(frozen=True)
class Fetched:
    """What came from the hub: a repository's folder, or one file of it, the commit, and a sentence where nobody asked the hub."""

    place: Path
    commit: str
    note: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """The sentence, if there is one."""
        return (self.note,) if self.note else ()


def fetch(
    repo: str, revision: str | None, *, weights: bool = True, only: Iterable[str] | None = None, variant: str | None = None
) -> Fetched:
    """Download the components that `model_index.json` names.

    Args:
        repo: hub id, `owner/name`.
        revision: branch, tag or commit; null is the default branch.
        weights: false takes configs and tokenizers alone.
        only: component folders to take, instead of all in the index.
        variant: of the weights, such as fp16, where a component has it.

    Raises:
        UnsupportedError: the hub cannot be reached and its cache has not all, it has no such model, or one of pickles only.
        MissingDependency: huggingface_hub is not installed.

    """

    def wanted(files: list[str], load: Callable[[str], Path]) -> list[str]:
        there = {file.partition("/")[0] for file in files}
        several = [
            (name, *itertools.takewhile(there.__contains__, component_files.further(name)))
            for name in (_components(load, repo, files) if only is None else only)
        ]
        names = itertools.chain.from_iterable(several)
        return ["model_index.json", *(file for name in names for file in _wanted(files, name, weights=weights, variant=variant))]

    return _fetched(repo, revision, wanted)


def fetch_network(
    repo: str,
    revision: str | None,
    component: str,
    *,
    weights: bool = True,
    beside: Iterable[str] = (),
    variant: str | None = None,
) -> Fetched:
    """Download one network, of a whole pipeline or of a repository that holds nothing else.

    Of a pipeline its index and its scheduler's config come along, which tell what the network predicts.

    Args:
        repo: hub id, `owner/name`.
        revision: branch, tag or commit; null is the default branch.
        component: folder of the network in a pipeline, such as `unet`.
        weights: false takes the config alone.
        beside: files that come along, if they are there, where the network stands alone.
        variant: of the weights, such as fp16, where the network has it.

    Raises:
        UnsupportedError: the hub cannot be reached, or has no such network there, or it is a pickle.
        MissingDependency: huggingface_hub is not installed.

    """

    def wanted(files: list[str], _load: Callable[[str], Path]) -> list[str]:
        if "model_index.json" in files:
            own = _wanted(files, component, weights=weights, variant=variant)
            return ["model_index.json", "scheduler/scheduler_config.json", *own]
        inside = [file for file in files if "/" not in file]
        chosen = safetensors_header.chosen(inside, repo, variant) if weights and "config.json" in inside else ()
        told = [name for name in beside if name in inside]
        return ["config.json", *told, *(name for name in inside if name.endswith(".index.json")), *chosen]

    return _fetched(repo, revision, wanted)


def fetch_file(repo: str, revision: str | None, choose: Callable[[list[str]], str], beside: Iterable[str] = ()) -> Fetched:
    """Download the one file that `choose` picks from a repository's names, and what is to lie beside it.

    Raises:
        UnsupportedError: the hub cannot be reached, or has no such repository.
        MissingDependency: huggingface_hub is not installed.

    """
    picked: list[str] = []

    def wanted(files: list[str], _load: Callable[[str], Path]) -> list[str]:
        picked.append(choose(files))
        return [picked[0], *(name for name in beside if name in files)]

    found = _fetched(repo, revision, wanted)
    return Fetched(found.place / picked[0], found.commit, found.note)


def fetch_chosen(repo: str, revision: str | None, choose: Callable[[Sequence[str]], list[str]]) -> Fetched:
    """Download the files that `choose` picks from a repository's names.

    Raises:
        UnsupportedError: the hub cannot be reached, or has no such repository.
        MissingDependency: huggingface_hub is not installed.

    """
    return _fetched(repo, revision, lambda files, _load: choose(files))


def _fetched(repo: str, revision: str | None, wanted: Callable[[list[str], Callable[[str], Path]], list[str]]) -> Fetched:
    """Ask the hub for a commit and its files, choose, and download; from the cache where the hub is out of reach."""
    with _sentences(repo, revision) as hub:
        try:
            info = hub.HfApi().model_info(repo, revision=revision)
            commit, files = str(info.sha or ""), [sibling.rfilename for sibling in info.siblings or ()]
        except (*_failures(), *_ANSWERS) as error:
            if not _out_of_reach(error):
                raise
            return _cached(repo, revision, wanted, error if isinstance(error, _failures()) else OSError(_STRANGER))
        if not commit:
            return _cached(repo, revision, wanted, OSError(_STRANGER))
        patterns = wanted(files, lambda name: Path(hub.hf_hub_download(repo, name, revision=commit)))
        with downloads.bars(repo) as bar:
            folder = Path(hub.snapshot_download(repo, revision=commit, allow_patterns=patterns, tqdm_class=bar))
        _remember(repo, revision, commit)
        return Fetched(folder, commit)


#: What the library raises for an answer that is not the hub's.
_ANSWERS = (ValueError, KeyError, TypeError, AttributeError)
_STRANGER = "what answers there is not the hub, but a proxy or a login page"


def _failures() -> tuple[type[BaseException], ...]:
    """How a question to the hub fails: in the HTTP client, whose errors' root differs between versions, or in the system."""
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - only this source needs it

    return HfHubHTTPError.__mro__[1], OSError


def _out_of_reach(error: BaseException) -> bool:
    """Whether nobody answered, or only that the hub is down; not where it answered no."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415 - only this source needs it

    if isinstance(error, HFValidationError):
        return False
    return not isinstance(error, HfHubHTTPError) or error.response.status_code >= 500


def _cached(
    repo: str,
    revision: str | None,
    wanted: Callable[[list[str], Callable[[str], Path]], list[str]],
    reason: BaseException,
) -> Fetched:
    """The commit that the cache holds under a revision, if all that is wanted of it is there."""
    store, told = _store(repo), _line(reason)
    reference = store / "refs" / (revision or "main")
    snapshots = sorted(store.glob("snapshots/*"))
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision or ""
    if revision is None and not commit and len(snapshots) == 1:
        commit = snapshots[0].name
    folder = store / "snapshots" / commit
    if not commit or not folder.is_dir():
        raise UnsupportedError(
            f"{repo} is not in the cache, and the hub was not reached: {told}.\n  Fetch it once where there is a network "
            f"(hf download {repo}), copy that cache here ({store.parent}); or name a local folder."
        ) from reason
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    try:
        names = [name for name in wanted(files, lambda name: folder / name) if name not in _OPTIONAL]
        missing = [name for name in names if not (folder / name).is_file()]
        problem = f"it lacks {', '.join(missing)}" if missing else ""
    except UnsupportedError as error:
        problem = _line(error)
    if problem:
        raise UnsupportedError(
            f"{repo} is not whole in the cache: {problem}; and the hub was not reached: {told}.\n"
            "  Fetch it once where there is a network: a download that was broken off goes on where it was."
        ) from reason
    return Fetched(folder, commit, f"{repo}: the hub was not reached ({told}), so its commit {commit[:12]} comes from the cache")


#: Files that not every repository has.
_OPTIONAL = ("scheduler/scheduler_config.json",)


def _remember(repo: str, revision: str | None, commit: str) -> None:
    """Note in the cache what a revision is, which the library does not for a download by commit; a build offline looks there."""
    if revision == commit or not (store := _store(repo)).is_dir():
        return
    reference = store / "refs" / (revision or "main")
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit, encoding="utf-8")


def _store(repo: str) -> Path:
    """Where the library's cache keeps a repository."""
    from huggingface_hub import constants  # noqa: PLC0415

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextlib.contextmanager
def _sentences(repo: str, revision: str | None) -> Iterator[Any]:
    """Lend the hub's library; its errors become a sentence."""
    try:
        import huggingface_hub  # noqa: PLC0415 - only this source needs it
        from huggingface_hub import constants, errors  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependency("huggingface_hub", "compile") from error
    try:
        yield huggingface_hub
    except (*_failures(), errors.HFValidationError, errors.LocalEntryNotFoundError) as error:
        if (refused := refusal(error, f"{repo} into the cache", Path(constants.HF_HUB_CACHE))) is not None:
            raise refused from error
        raise UnsupportedError(_told(repo, revision, error)) from error


def _told(repo: str, revision: str | None, error: BaseException) -> str:
    """The sentence of an error of the hub's library."""
    from huggingface_hub import constants, errors  # noqa: PLC0415 - only this source needs it

    page, line = f"{constants.ENDPOINT}/{repo}", _line(error)
    account = "`hf auth login`, or set HF_TOKEN to a token that may read it"
    kinds = {
        errors.GatedRepoError: f"{repo} is gated: its licence must be accepted at {page}, by the account that fetches it.\n"
        f"  Accept it there, then {account}.",
        errors.RevisionNotFoundError: f"{repo} has no revision {revision!r}.\n  Take a branch, tag or commit of {page}/commits.",
        errors.RepositoryNotFoundError: f"{repo} is not on the hub, or it is private.\n"
        f"  Check the id; for a private one: {account}.",
        errors.DisabledRepoError: f"{repo} has been disabled by the hub.\n  Take the model from another source.",
        errors.HFValidationError: f"{repo} cannot be a hub id: {line}.\n  Write owner/name.",
    }
    if found := next((text for kind, text in kinds.items() if isinstance(error, kind)), ""):
        return found
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 500
    if status == _OFTEN:
        return f"{repo}: the hub was asked too often: {line}.\n  Wait some minutes and build again; for more: {account}."
    if status in {401, 403}:
        return (
            f"{repo} may not be read by this account, or by none: {line}.\n  Accept its licence at {page} if it has one; then "
            f"{account}."
        )
    if status < 500:
        return f"the hub refuses {repo}: {line}.\n  Look whether {page} is there, under this name, and has this revision."
    return _unreached(repo, error)


def _unreached(repo: str, error: BaseException) -> str:
    return (
        f"{repo} could not be fetched from the hub: {_line(error)}.\n"
        "  Check the network, and build again: a download that was broken off goes on where it was. Or name a local folder, or "
        "take random weights:\n    --set model.weights=random --set model.source=<architecture>"
    )


def _components(load: Callable[[str], Path], repo: str, files: list[str]) -> list[str]:
    if "model_index.json" not in files:
        safetensors_header.refuse_pickle(repo, [file for file in files if not any(f.endswith(".safetensors") for f in files)])
        raise UnsupportedError(
            f"{repo} on the hub has no model_index.json, so it is not a diffusers pipeline.\n"
            "  Take a repository in diffusers format, or download its .safetensors file and name that."
        )
    index = component_files.of_diffusers(json.loads(load("model_index.json").read_text(encoding="utf-8")))
    return [name for name, entry in index.items() if isinstance(entry, list) and entry[0] in {"diffusers", "transformers"}]


def _wanted(files: Iterable[str], component: str, *, weights: bool, variant: str | None = None) -> list[str]:
    inside = [file.removeprefix(f"{component}/") for file in files if file.startswith(f"{component}/") and file.count("/") == 1]
    text = [name for name in inside if name.endswith(_TEXT)]
    network = "config.json" in inside
    chosen = safetensors_header.chosen(inside, component, variant) if weights and network else ()
    return [f"{component}/{name}" for name in [*text, *chosen]]
