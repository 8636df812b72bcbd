"""Stages of the passes that make other networks: the data and the trajectories that they learn from, and the networks, kept."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from engines.errors import RecipeError
from exporter.models.checkpoint import network
from exporter.stages.stage import Results, Stage
from exporter.training import context

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.models.checkpoint import Checkpoint
    from exporter.passes import Pass
    from exporter.reference.recording import RecordingFolder
    from exporter.stages.passes import Passes, Teachers
    from exporter.training.options import Options

_FILE = "metadata.json"


@dataclass(frozen=True)
class MadeNetwork:
    """A network that a pass made, as diffusers keeps networks, and what the pass has to say."""

    folder: Path

    @property
    def notes(self) -> Sequence[str]:
        """A sentence each."""
        return self._told["notes"]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the pass found out, by its name."""
        return self._told["metadata"]

    @property
    def _told(self) -> Mapping[str, Any]:
        return json.loads((self.folder / _FILE).read_text(encoding="utf-8"))

    def write(self, kept: Any, notes: Sequence[str], metadata: Mapping[str, Any]) -> None:  # noqa: ANN401 - diffusers' model
        """Keep a network here."""
        kept.save_pretrained(self.folder)
        told = {"notes": list(notes), "metadata": dict(metadata)}
        (self.folder / _FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class TrainingData:
    """Encoded images and captions, or a teacher's trajectories, as `exporter.training` lays them out."""

    folder: Path


@dataclass(frozen=True)
class TaughtPass:
    """All that a pass that trains is planned with.

    Attributes:
        step: the pass.
        part: whose network it teaches.
        family: of the recipe.
        teachers: whom the network learns from.
        moved: the part's passes, which say where modules moved.
        encoded: images and captions.
        played: the teacher's trajectories, where the pass learns from such.
        before: the networks of the passes before it, by the pass's name.

    """

    step: Any
    part: str
    family: Family
    teachers: Teachers
    moved: Mapping[str, Pass]
    encoded: Stage[TrainingData]
    played: Stage[TrainingData] | None = None
    before: Mapping[str, Stage[MadeNetwork]] = field(default_factory=dict)


class Networks:
    """The networks that a recipe's passes make.

    Attributes:
        of: part → pass → stage of its network, each from the one before.
        last: part → stage of the network that all of them leave.
        stages: all, with what they need.

    Raises:
        RecipeError: a pass has to see what the source does, and that is not recorded.

    """

    def __init__(self, passes: Passes, recording: Stage[RecordingFolder] | None) -> None:
        self._passes, self._recording = passes, recording
        self._stages: list[Stage[Any]] = []
        self.of: Mapping[str, dict[str, Stage[MadeNetwork]]] = {part: {} for part in passes.remade}
        for part, names in passes.remade.items():
            for name in names:
                self.of[part][name] = self._made(part, name)
                self._stages.append(self.of[part][name])
        self.last = {part: stage for part, stages in self.of.items() if (stage := _last(stages))}
        self.stages = tuple(self._stages)

    def weights(self, part: str) -> str | Stage[MadeNetwork]:
        """What a part's stages depend on: the network that passes leave, or the digest of the source's."""
        return self.last.get(part) or self._passes.family.digest(part)

    def _made(self, part: str, name: str) -> Stage[MadeNetwork]:
        passes, family = self._passes, self._passes.family
        step, before = passes.of[part][name], dict(self.of[part])
        if step.recorded and not self._recording:
            raise RecipeError(f"checks.skip: {name} of {part} has to see what the source does, so that is recorded; leave it out")
        options: Mapping[str, Any] = step.model_dump(mode="json")  # type: ignore[attr-defined]  # a plugin's options are a Frozen
        inputs: dict[str, str | Stage[Any]] = {"weights": _last(before) or family.digest(part)}
        if step.recorded and self._recording:
            inputs["record"] = self._recording
        model = type(family), type(family.checkpoint)
        makers = (*model, MadeNetwork, *(type(passes.of[part][each]) for each in (*before, name)))
        if step.kind == "swap":
            other = passes.borrowed(part, name)
            make, inputs = partial(_swap, part=part, other=other), dict[str, str | Stage[Any]](network=other.digest(part))
        elif step.kind == "training":
            options, teachers = context.options_of(cast("Options", step)), passes.teachers(part, name)
            shown = {key: each for key, each in inputs.items() if key != "weights"} | dict(teachers.digests)
            taught = self._taught(part, name, teachers, shown)
            inputs |= {**shown, "pictures": taught.encoded} | ({"played": taught.played} if taught.played else {})
            make = partial(_teach, taught=replace(taught, before=before))
        else:
            seen = self._recording if step.recorded else None
            make = partial(_change, step=step, part=part, family=family, before=before, seen=seen)
        return Stage.keyed(
            "pass", f"{part}, {name}", make, MadeNetwork,
            options=options, inputs=inputs, makers=makers, resumes=step.kind == "training",
        )  # fmt: skip

    def _taught(self, part: str, name: str, teachers: Teachers, shown: Mapping[str, str | Stage[Any]]) -> TaughtPass:
        """Plan what a pass that trains learns from; `shown` are the inputs of what its teacher shows it."""
        passes, family = self._passes, self._passes.family
        step, place, model = passes.of[part][name], passes.place(part, name), (type(family), type(family.checkpoint))
        options, digests = passes.keyed(part, name)
        encoded = Stage.keyed(
            "encode", f"{part}, {name}", partial(_encode, step=step, family=family, place=place, texts=passes.reads(part)),
            TrainingData, options=options, inputs=digests, makers=model, shared="pictures",
        )  # fmt: skip
        self._stages.append(encoded)
        taught = TaughtPass(step, part, family, teachers, passes.of[part], encoded)
        if (options := passes.plays(part, name)) is None:
            return taught
        played = Stage.keyed(
            "play", f"{part}, {name}", partial(_play, taught=taught), TrainingData,
            options=options, inputs={**shown, "pictures": encoded}, makers=model, shared=part,
        )  # fmt: skip
        self._stages.append(played)
        return replace(taught, played=played)


def family_of(family: Family, networks: Mapping[str, MadeNetwork]) -> Family:
    """The family over networks that passes made, by part."""
    checkpoint = family.checkpoint
    for part, made in networks.items():
        checkpoint = checkpoint.replacing(part, made.folder)
    return family.replacing(checkpoint=checkpoint)


def _last(before: Mapping[str, Stage[MadeNetwork]]) -> Stage[MadeNetwork] | None:
    return next(reversed(tuple(before.values())), None)


def _after(results: Results, family: Family, part: str, before: Mapping[str, Stage[MadeNetwork]]) -> Family:
    """The family over the network that the passes before leave."""
    last = _last(before)
    return family_of(family, {part: results[last]} if last else {})


def _swap(folder: Path, _: Results, part: str, other: Checkpoint) -> None:
    """Keep the network that stands in the source's place."""
    told = ", ".join(f"{key} {value}" for key, value in other.provenance.items())
    MadeNetwork(folder).write(other.module(part), [f"{part}: the network is another model's: {told}"], {})


def _change(
    folder: Path,
    results: Results,
    step: Pass,
    part: str,
    family: Family,
    before: Mapping[str, Stage[MadeNetwork]],
    seen: Stage[RecordingFolder] | None,
) -> None:
    """Make another network of the one that is there; `seen` where the pass must see what the source does."""
    given = replace(_after(results, family, part, before).part(part, "fp32"), signature=family.signature(part))
    made = step(replace(given, cases=results[seen].calls(part)) if seen else given)
    MadeNetwork(folder).write(made.network, made.notes, dict(made.metadata))


def _encode(folder: Path, _: Results, step: Any, family: Family, place: str, *, texts: bool) -> None:  # noqa: ANN401 - options
    """Encode the pictures that a pass learns from, and their captions."""
    pictures = context.found(step, family.recipe, place)
    context.encode(context.steered(step, family), family.recipe, pictures, folder, texts=texts)


def _play(folder: Path, results: Results, taught: TaughtPass) -> None:
    """Let the teacher play the trajectories that a pass learns from."""
    from exporter.training.teacher_rollouts import play  # noqa: PLC0415 - torch

    play(taught.step, _lesson(results, taught), folder)


def _teach(folder: Path, results: Results, taught: TaughtPass) -> None:
    """Train the network."""
    part, before = taught.part, _after(results, taught.family, taught.part, taught.before)
    student = context.plain(taught.family, before.checkpoint).part(part, "fp32")
    made = taught.step.teach(student, _lesson(results, taught))
    shutil.copy(results.unfinished / "curve.jsonl", folder / "curve.jsonl")
    if network(part) == "vae":  # the half that nobody taught stays what it was
        whole = before.checkpoint.module(part)
        whole.load_state_dict({**whole.state_dict(), **made.network.state_dict()})
        made = made.replacing(whole)
    MadeNetwork(folder).write(made.network, made.notes, dict(made.metadata))


def _lesson(results: Results, taught: TaughtPass) -> context.TrainingContext:
    family, source, classifier = taught.family, taught.teachers.teacher, taught.teachers.classifier
    denoiser = context.plain(family, source)
    metadata = {name: results[stage].metadata for name, stage in taught.before.items()}
    return context.TrainingContext(
        teacher=denoiser.part(taught.part, "fp32"),
        schedule=family.checkpoint.configs["scheduler"],
        encoded=results[taught.encoded].folder,
        ports=tuple(port.name for port in denoiser.signature(taught.part).inputs[2:]),
        moved=context.came(taught.moved, source.configs[network(taught.part)], metadata),
        kept=results.unfinished,
        say=_say,
        played=results[taught.played].folder if taught.played else None,
        sight=(classifier, family.part("vae_decoder", "fp32")) if classifier else None,
    )


def _say(line: str) -> None:
    """Tell how a training goes, beside what the command prints."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
