"""Scores of pictures: metrics against a reference's pictures on the same noise, plugins of this folder, and files of a user's.

A score is a frozen model of its options, one a file, as every plugin: `of` gives a number for each picture, whose mean is told
with its interval. One that judges by files has their SHA-256 as `digest`; paths among its options count from the `root` of the
validation's context. One whose number depends on how it is told has `notes`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import ValidationError, ValidationInfo

from engines import plugins
from engines.errors import RecipeError, UnsupportedError
from exporter.parity.metrics import METRICS
from exporter.recipe.messages import sentences
from exporter.recipe.yaml_source import dotted

__all__ = ["MetricScore", "Score", "digest", "from_file", "kept_of", "load", "name_of", "notes", "root_of"]


class Score(Protocol):
    """What judges pictures."""

    @property
    def label(self) -> str:
        """What tables call it."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Which way is better."""
        ...

    @property
    def compares(self) -> bool:
        """Whether it needs the reference's pictures."""
        ...

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:
        """A number for each picture.

        Args:
            images: uint8 (pictures, height, width, 3).
            prompts: one a picture.
            reference: the reference's pictures of the same prompts on the same noise, as images; None where not `compares`.

        """
        ...


@dataclass(frozen=True)
class MetricScore:
    """A metric of the check, picture by picture."""

    metric: str

    @property
    def label(self) -> str:
        """As the blame table calls it."""
        return METRICS[self.metric].label

    @property
    def higher_is_better(self) -> bool:
        """As the metric says."""
        return METRICS[self.metric].higher_is_better

    @property
    def compares(self) -> bool:
        """With the reference's pictures, always."""
        return True

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """How near each picture is to the reference's."""
        if reference is None:
            raise TypeError(f"{self.metric} compares with a reference, and was given none")
        pairs = zip(images.astype(np.float32) / 255, reference.astype(np.float32) / 255, strict=True)
        return [METRICS[self.metric].of(got[None], want[None], 1.0) for got, want in pairs]


def name_of(spelled: str) -> str:
    """What rows call a score: its own name, or the bare name of the user's file."""
    return Path(spelled).stem if spelled.endswith(".py") else spelled


def load(spelled: str, options: Mapping[str, Any], root: Path, kept: Path | None = None) -> Score:
    """Open a score: a metric, a plugin of the kind `scores`, or a Python file that counts from `root`.

    What it sees in the pictures that others are held against it may leave in the folder `kept`, for whoever opens it next.

    Raises:
        RecipeError: there is none, or its options are wrong, or name what is not there.
        UnsupportedError, MissingDependency: as its constructor says; nothing is drawn before it is open.

    """
    if spelled in METRICS:
        if options:
            raise RecipeError(f"{spelled}: it takes no options")
        return MetricScore(spelled)
    made = from_file(root / spelled, "a score") if spelled.endswith(".py") else _plugin(spelled)
    try:
        return made.model_validate_json(json.dumps(dict(options)), strict=True, context={"root": root, "kept": kept})
    except ValidationError as error:
        raise RecipeError([f"{spelled}.{dotted(place)}: {told}" for place, told in sentences(made, error)]) from error
    except RecipeError as error:
        raise RecipeError([f"{spelled}.{problem}" for problem in error.problems]) from error


def root_of(about: ValidationInfo) -> Path:
    """The folder from which a score's paths count, as `load` hands it to the validators of its options."""
    if about.context is None:
        raise TypeError("a score that names files is opened by scores.load")
    return about.context["root"]


def kept_of(about: ValidationInfo) -> Path | None:
    """The folder in which a score may leave what it sees, as `load` hands it on; None for no such place."""
    return (about.context or {}).get("kept")


def digest(spelled: str, options: Mapping[str, Any], root: Path) -> str:
    """SHA-256 of what a score judges by beside its options: a file of the user's, or the files that it names itself."""
    if spelled.endswith(".py"):
        return hashlib.sha256((root / spelled).read_bytes()).hexdigest()
    return getattr(load(spelled, options, root), "digest", "")


def notes(score: Score, count: int) -> list[str]:
    """What is to be known of a score of so many pictures, sentences: its protocol, and whether they are too few."""
    told = getattr(score, "notes", None)
    return list(told(count)) if told else []


def _plugin(name: str) -> Any:  # noqa: ANN401 - a class with the protocol above
    known = [*METRICS, *plugins.names("scores")]
    if name not in known:
        raise RecipeError(f"unknown score {name!r}{plugins.did_you_mean(name, known)}; or name a Python file, such as ./mine.py")
    return plugins.load("scores", name)


def from_file(file: Path, what: str) -> Any:  # noqa: ANN401 - as above
    """What a user's file calls by its one public name, `what` in words.

    Raises:
        RecipeError: there is no such file.
        UnsupportedError: it is no Python module, or has not one public name.

    """
    if not file.is_file():
        raise RecipeError(f"{file} is not a file; {what}'s file counts from the folder of what names it")
    spec = importlib.util.spec_from_file_location(f"t2iexport_{what.rsplit(maxsplit=1)[-1]}_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UnsupportedError(f"{file} is no Python module. Write one whose __all__ has one name, {what}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    public = getattr(module, "__all__", [])
    if len(public) != 1:
        raise UnsupportedError(f"{file} must state __all__ with one name, that of {what}.")
    return getattr(module, public[0])
