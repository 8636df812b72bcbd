"""One step of a build, remembered under a content key, and the typed results that steps hand to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from exporter.stages.keys import key_of
from exporter.stages.store import Key, Store

if TYPE_CHECKING:
    from exporter.stages.engine_work import EngineWork

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class Elsewhere:
    """What of a stage another machine can do.

    Attributes:
        work: what that is, as plain data, of the results that the stage reads.
        gpu: compute capability of the GPU that it needs; empty where any machine will do.

    """

    work: Callable[[Results], EngineWork]
    gpu: str = ""


@dataclass(frozen=True, eq=False)
class Stage(Generic[R]):
    """One memoised step: what it does, for whom, under which key, how, and what its finished folder is.

    Attributes:
        verb: what is done (`export`).
        subject: for whom (`unet, opset 20`).
        key: what the result depends on.
        make: fills an empty folder, given the results of the stages that the key tells of.
        result: opens the finished folder.
        needs: the stages among the key's inputs.
        resumes: whether it can leave off: `results.unfinished` is then a folder that survives a kill.
        elsewhere: what another machine can do in place of `make`; None where only this one can.

    """

    verb: str
    subject: str
    key: Key
    make: Callable[[Path, Results], None]
    result: Callable[[Path], R]
    needs: tuple[Stage[Any], ...] = ()
    resumes: bool = False
    elsewhere: Elsewhere | None = None

    @staticmethod
    def keyed(
        verb: str,
        subject: str,
        make: Callable[[Path, Results], None],
        result: Callable[[Path], T],
        *,
        options: Mapping[str, Any],
        inputs: Mapping[str, str | Stage[Any]],
        makers: Iterable[object] = (),
        versions: Mapping[str, str] | None = None,
        resumes: bool = False,
        shared: str | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> Stage[T]:
        """Make a stage and its key.

        Args:
            verb: as above.
            subject: as above.
            make: as above; a function of a module, or `functools.partial` of one.
            result: as above; a class or a function, or `functools.partial` of one.
            options: plain data.
            inputs: digests of what was found while planning, and stages whose results are read.
            makers: besides `make` and what opens the inputs: the classes of the objects that `make` is given.
            versions: of the libraries that it depends on, where these are not torch's and its kin.
            resumes: as above.
            shared: subject of the key, where stages of several subjects make the same.
            elsewhere: as above.

        """
        needs = tuple(each for each in inputs.values() if isinstance(each, Stage))
        code = (_function(make), *makers, *(_function(each.result) for each in needs))
        digests = {name: str(each.key) if isinstance(each, Stage) else each for name, each in inputs.items()}
        key = key_of(verb, shared or subject, options, digests, code, versions)
        return Stage(verb, subject, key, make, result, needs, resumes, elsewhere)

    @property
    def name(self) -> tuple[str, str]:
        """Verb and subject, which no other stage of a plan has."""
        return self.verb, self.subject


@dataclass(frozen=True)
class NamedFile:
    """A file in a stage's folder that is called by the name of whom it is for."""

    folder: Path
    name: str
    suffix: ClassVar[str] = ""

    @property
    def file(self) -> Path:
        """The file itself."""
        return self.folder / f"{self.name}{self.suffix}"


class Results:
    """What stages made, each opened as its stage says, and made first where it is missing.

    A stage at work is given those that its key tells of, and no others: what it can read is in its key.

    Attributes:
        unfinished: folder in which a stage that resumes leaves off.

    Raises:
        LookupError: a stage reads what its key does not tell of.

    """

    def __init__(self, store: Store) -> None:
        self._store, self._folders = store, dict[Stage[Any], Path]()
        self._known: frozenset[Stage[Any]] | None = None
        self.unfinished = Path()

    def __getitem__(self, stage: Stage[T]) -> T:
        return stage.result(self.folder(stage))

    def folder(self, stage: Stage[Any], make: Callable[[Path], None] | None = None) -> Path:
        """The folder of a finished stage; where it is missing, it is filled by `make`, or as the stage says."""
        if self._known is not None and stage not in self._known:
            raise LookupError(f"{stage.verb} {stage.subject} is not in the key of the stage that reads it")
        if stage not in self._folders:
            self._folders[stage] = self._store.folder(stage.key, make or (lambda folder: self.fill(stage, folder)))
        return self._folders[stage]

    def put(self, stage: Stage[Any], folder: Path) -> None:
        """Take a folder for a stage's result, instead of what the store holds."""
        self._folders[stage] = folder

    def fill(self, stage: Stage[Any], folder: Path) -> None:
        """Let a stage do its work in an empty folder."""
        seen = Results(self._store)
        seen._folders, seen._known = self._folders, frozenset(closure(stage.needs))
        if stage.resumes:
            seen.unfinished = self._store.unfinished(stage.key)
        stage.make(folder, seen)


def closure(stages: Iterable[Stage[Any]]) -> set[Stage[Any]]:
    """These stages and all that they need."""
    found, left = set[Stage[Any]](), list(stages)
    while left:
        if (stage := left.pop()) not in found:
            found.add(stage)
            left += stage.needs
    return found


def _function(callable_: Callable[..., Any]) -> object:
    return callable_.func if isinstance(callable_, partial) else callable_
