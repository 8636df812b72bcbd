"""What the source model was seen to do, as arrays on disk: `.npz` without pickles, so that checking needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from engines.guidance import PERTURBED, USUAL
from exporter.part import Case

#: Largest finite float16.
HALF_MAX = 65504.0
#: What of a run is no array.
_NESTED = {"setting", "source", "inputs"}


@dataclass(frozen=True)
class Setting:
    """The arguments of one run of the source pipeline.

    `guidance_scale` is None where the model takes none; 1.0 is guidance switched off. Sizes in pixels. `strength` is that of a
    run that starts from an image, else None; `masked` tells whether a part of it is kept. `pag_scale` is None where it is the
    bundle's own, or there is none.
    """

    label: str
    prompts: tuple[str, ...]
    negative_prompt: str | None
    steps: int
    height: int
    width: int
    guidance_scale: float | None
    strength: float | None = None
    masked: bool = False
    pag_scale: float | None = None

    @property
    def scales(self) -> dict[str, float]:
        """The scales of guidance that are asked for, by name."""
        given = {USUAL: self.guidance_scale, PERTURBED: self.pag_scale}
        return {name: scale for name, scale in given.items() if scale is not None}


@dataclass(frozen=True)
class RunSource:
    """What a run starts from, where that is not noise alone.

    Attributes:
        pixels: uint8 (height, width, 3).
        anew: bool (height, width), True where pixels are made anew; None where all are.
        latent: float32 (B, C, H, W), what the encoder made of the pixels.

    """

    pixels: np.ndarray
    anew: np.ndarray | None
    latent: np.ndarray


@dataclass(frozen=True)
class Run:
    """One run of the source pipeline from noise to picture.

    Attributes:
        setting: its arguments.
        times: float64 (evaluations,), the model time of every denoiser call.
        model_inputs: float32 (evaluations, B, C, H, W), as the scheduler scaled them.
        model_outputs: float32 (evaluations, B, C, H, W), after guidance, as the scheduler received them.
        draws: float32 (n, B, C, H, W), standard normal noise in the order of use; the first is the initial one, but of a run that
            starts from an image the encoder's, where that draws.
        latent: float32 (B, C, H, W), the final one.
        image: float32 (B, height, width, 3) in [0, 1].
        source: what it starts from; None is noise alone.
        scales: float64 (evaluations,), the scale of guidance at every call; None where it is the setting's at all.
        pag_scales: the same of perturbed attention.
        shallow: bool (evaluations,), whether a call used the outermost layers alone; None without step caching.
        uncached: float32 as `image`, what the same noise gives without step caching; None where that was not made.
        inputs: pictures that users feed, uint8 (B, height, width, channels) by name, and whole numbers, int64 (B,).

    """

    setting: Setting
    times: np.ndarray
    model_inputs: np.ndarray
    model_outputs: np.ndarray
    draws: np.ndarray
    latent: np.ndarray
    image: np.ndarray
    source: RunSource | None = None
    scales: np.ndarray | None = None
    shallow: np.ndarray | None = None
    uncached: np.ndarray | None = None
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    pag_scales: np.ndarray | None = None

    def calls(self, *, shallow: bool = False) -> list[int]:
        """Indices of the calls of the whole denoiser, or of its outermost layers alone."""
        return [index for index in range(len(self.times)) if shallow == (self.shallow is not None and bool(self.shallow[index]))]

    def asked(self, index: int) -> dict[str, float]:
        """The scales of guidance at a call, by name, beside those that are the bundle's own."""
        single = {USUAL: self.scales, PERTURBED: self.pag_scales}
        return self.setting.scales | {name: float(each[index]) for name, each in single.items() if each is not None}


@dataclass(frozen=True)
class Recording:
    """Runs, the calls of every part picked from them, and the largest activation seen inside every component."""

    runs: tuple[Run, ...]
    cases: Mapping[str, tuple[Case, ...]]
    ranges: Mapping[str, float]


def trajectory(run: Run, case: Case) -> tuple[Case, ...]:
    """Every call of the whole denoiser in a run, with what else one of its recorded calls took (text, guidance).

    Where calls have scales of their own, so have these; those without guidance keep both branches, which give the same.
    """
    found = []
    for index in run.calls():
        inputs = {**case.inputs, "latent": run.model_inputs[index]}
        inputs["timestep"] = np.full_like(case.inputs["timestep"], run.times[index])
        asked = run.asked(index)
        inputs |= {name: np.full_like(each, asked[name]) for name, each in case.inputs.items() if name in asked}
        where = f"{run.setting.label}, step {index + 1} of {len(run.times)}"
        found.append(Case(where, inputs, {"model_output": run.model_outputs[index]}))
    return tuple(found)


def _fullest(cases: Iterable[Case]) -> Case:
    """The first of those that hold most: calls without guidance may hold one branch of the text."""
    return max(cases, key=lambda case: sum(array.size for array in case.inputs.values()))


def save_cases(cases: Sequence[Case], path: Path) -> None:
    """Write a part's cases to one file."""
    arrays: dict[str, np.ndarray] = {"labels": np.array([case.label for case in cases])}
    for index, case in enumerate(cases):
        for side in ("inputs", "source", "passes"):
            arrays |= {f"{index}/{side}/{name}": array for name, array in getattr(case, side).items()}
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType] - numpy's stub takes the keywords for options


def load_cases(path: Path) -> tuple[Case, ...]:
    """Read what `save_cases` wrote."""
    with np.load(path, allow_pickle=False) as file:
        sides = [{side: {} for side in ("inputs", "source", "passes")} for _ in file["labels"]]
        for key in file.files:
            if key != "labels":
                index, side, name = key.split("/")
                sides[int(index)][side][name] = file[key]
        return tuple(Case(str(label), **side) for label, side in zip(file["labels"], sides, strict=True))


def save_run(run: Run, path: Path) -> None:
    """Write one run to one file."""
    arrays = {name: array for name, array in vars(run).items() if name not in _NESTED and array is not None}
    arrays |= {f"inputs/{name}": array for name, array in run.inputs.items()}
    if run.source:
        arrays |= {f"source/{name}": array for name, array in vars(run.source).items() if array is not None}
    np.savez(path, setting=np.array(json.dumps(asdict(run.setting))), **arrays)


def load_run(path: Path) -> Run:
    """Read what `save_run` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    setting = json.loads(str(arrays.pop("setting")))
    given = {key.removeprefix("source/"): arrays.pop(key) for key in list(arrays) if key.startswith("source/")}
    source = RunSource(**{"anew": None, **given}) if given else None
    fed = {key.removeprefix("inputs/"): arrays.pop(key) for key in list(arrays) if key.startswith("inputs/")}
    return Run(Setting(**setting | {"prompts": tuple(setting["prompts"])}), **arrays, source=source, inputs=fed)


@dataclass(frozen=True)
class RecordingFolder:
    """A recording on disk, as a stage leaves it and a bundle holds it; `name` is a part's."""

    folder: Path

    @property
    def runs(self) -> list[Path]:
        """A file each; `load_run` reads them."""
        return sorted(self.folder.glob("run_*.npz"))

    @property
    def ranges(self) -> dict[str, float]:
        """Component → the largest activation that was seen."""
        return json.loads(self._ranges.read_text(encoding="utf-8"))

    @property
    def _ranges(self) -> Path:
        return self.folder / "ranges.json"

    def cases(self, name: str) -> tuple[Case, ...]:
        """The recorded calls of a part."""
        return load_cases(self.folder / f"{name}.npz")

    def calls(self, name: str) -> tuple[Case, ...]:
        """Every call of the denoiser in every recorded run; of another part, the calls that were recorded."""
        cases = self.cases(name)
        if not cases or "timestep" not in cases[0].inputs:
            return cases
        runs = [load_run(file) for file in self.runs]
        labels = [run.setting.label for run in runs]
        first = {label: _fullest(case for case in cases if case.label.startswith(f"{label}, ")) for label in labels}
        return tuple(case for run in runs for case in trajectory(run, first[run.setting.label]))

    def write(self, recording: Recording) -> None:
        """Keep a recording here."""
        for number, run in enumerate(recording.runs):
            save_run(run, self.folder / f"run_{number:04}.npz")  # so that the order of names is theirs: cases follow it
        for name, cases in recording.cases.items():
            save_cases(cases, self.folder / f"{name}.npz")
        self._ranges.write_text(json.dumps(dict(recording.ranges), indent=2, sort_keys=True) + "\n", encoding="utf-8")
