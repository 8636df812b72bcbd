"""The check of a bundle as a stage: every backend that opens here, held to what the source did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.bundle import Bundle, Verdict
from engines.errors import MissingDependency, UnsupportedError
from exporter.recipe.limits import Asked, Limits
from exporter.stages import assemble, contents
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from exporter.stages.plan import Plan


@dataclass(frozen=True)
class CheckResult:
    """Every verdict on a bundle, and of the backends that do not open here a sentence each."""

    folder: Path

    @property
    def verdicts(self) -> list[Verdict]:
        """All of them."""
        return [Verdict.model_validate(verdict) for verdict in self._content["verdicts"]]

    @property
    def unable(self) -> list[str]:
        """Who was not run, and why."""
        return self._content["unable"]

    @property
    def _file(self) -> Path:
        return self.folder / "verdicts.json"

    @property
    def _content(self) -> Mapping[str, Any]:
        return json.loads(self._file.read_text(encoding="utf-8"))

    def write(self, verdicts: Sequence[Verdict], unable: Sequence[str]) -> None:
        """Keep both."""
        content = {"verdicts": [verdict.model_dump(mode="json") for verdict in verdicts], "unable": list(unable)}
        self._file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def judge(path: Path, backends: Sequence[str | None], limits: Limits) -> tuple[list[Verdict], list[str]]:
    """Verdicts of every backend that opens here, and for each of the others a sentence saying why it does not."""
    from exporter.parity.compare import compare  # noqa: PLC0415 - a build that was checked before opens no engine

    verdicts: list[Verdict] = []
    unable: list[str] = []
    for backend in backends:
        try:
            found = compare(path, backend, limits)
        except (UnsupportedError, MissingDependency) as error:
            unable.append(f"{backend} was not run: {str(error).splitlines()[0]}")
            continue
        known = {(verdict.part, verdict.stage, verdict.case, verdict.backend) for verdict in verdicts}
        verdicts += [verdict for verdict in found if (verdict.part, verdict.stage, verdict.case, verdict.backend) not in known]
    return verdicts, unable


def stage(plan: Plan, path: Path) -> Stage[CheckResult]:
    """The check of the bundle at `path` as a stage: one that passed is not run again for the same bundle and limits."""
    limits = plan.recipe.checks.limits
    makers = assemble.lay_out, contents.opened
    return plan.last_stage("check", partial(_checked, path=path, limits=limits), CheckResult, options=limits, makers=makers)


def _checked(folder: Path, _: Results, path: Path, limits: Mapping[str, Asked]) -> None:
    verdicts, unable = judge(path, list(Bundle.open(path).manifest.runs()), Limits(limits))
    CheckResult(folder).write(verdicts or judge(path, [None], Limits(limits))[0], unable)
