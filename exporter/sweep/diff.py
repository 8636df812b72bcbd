"""Two bundles side by side: what their recipes say, what they hold, how long they take, and how far their pictures are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from engines.bundle import Bundle, Manifest
from engines.pipeline import Pipeline
from exporter import machine
from exporter.bench import run as bench
from exporter.bench.drawing import pixels, require_prompts_alone
from exporter.parity.metrics import METRICS
from exporter.recipe.schema import Checks
from exporter.recipe.yaml_source import Document
from exporter.stages.differences import differences
from exporter.sweep.build_point import parameters

#: Metrics of pictures that are shown.
_SHOWN = ("psnr", "ssim")
#: Of the sheet: pixels between pictures, height of a line of text, and how much the difference is enlarged.
_GAP, _LINE, _GAIN = 8, 16, 4


@dataclass(frozen=True)
class DrawnPair:
    """The pictures that both bundles make of a prompt from the same noise, each in its own way."""

    prompt: str
    one: Image.Image
    other: Image.Image

    @property
    def comparable(self) -> bool:
        """Whether they have one size."""
        return self.one.size == self.other.size

    def row(self) -> dict[str, str]:
        """How far they are apart, metric by metric."""
        found = {"prompt": self.prompt}
        if not self.comparable:
            return {**found, "not compared": f"{_size(self.one)} and {_size(self.other)}"}
        got, want = (_levels(picture)[None] for picture in (self.other, self.one))
        return found | {METRICS[name].label: METRICS[name].shown(METRICS[name].of(got, want, 1.0)) for name in _SHOWN}


def diff(one: Path, other: Path, rounds: int) -> tuple[dict[str, Any], list[DrawnPair]]:
    """Compare two bundles, each at its own defaults; nothing of it needs torch.

    Args:
        one: folder of a bundle, whose prompts are drawn.
        other: folder of another.
        rounds: how often each is timed, in turns.

    Returns:
        What a terminal shows, and the pictures.

    Raises:
        BundleError, UnsupportedError, MissingDependency: a bundle is damaged, or cannot be run here.

    """
    about = Bundle.open(one).manifest, Bundle.open(other).manifest
    for each in about:
        require_prompts_alone(each.inputs, "a comparison")
    recipes = [Document(each.recipe, f"{each.name}.yaml").data for each in about]
    prompts = tuple(recipes[0].get("checks", {}).get("prompts") or Checks().prompts)
    with Pipeline.open(one) as first, Pipeline.open(other) as second:
        pictures = [
            DrawnPair(prompt, *(each.generate(prompt, seed=bench.SEED)[0] for each in (first, second))) for prompt in prompts
        ]
        field = [bench.contestant(name, each, prompts[0]) for name, each in (("one", first), ("other", second))]
        with TemporaryDirectory() as folder:
            timings, _ = bench.race(field, [1], rounds, Path(folder))
    facts: dict[str, Any] = {
        "one": f"{one}, {timings[0].runs_on}",
        "other": f"{other}, {timings[1].runs_on}",
        "machine": machine.environment().sentence,
        "recipe, one → other": list(differences(*recipes)) or ["the same"],
        "both": [_row(what, *values) for what, values in _whole(about, timings).items()],
        "parts": [_part(name, about) for name in dict.fromkeys([*about[0].parts, *about[1].parts])],
        "pictures, same noise": [pair.row() for pair in pictures],
    }
    return facts, pictures


def sheet(pairs: Sequence[DrawnPair]) -> Image.Image:
    """Both pictures of every prompt, and beside them their difference, enlarged."""
    width = max(max(pair.one.width, pair.other.width) for pair in pairs)
    height = max(max(pair.one.height, pair.other.height) for pair in pairs)
    page = Image.new("RGB", (3 * (width + _GAP) + _GAP, len(pairs) * (height + _LINE + _GAP) + _LINE + _GAP), "white")
    pen = ImageDraw.Draw(page)
    for column, title in enumerate(("one", "other", f"difference × {_GAIN}")):
        pen.text((_GAP + column * (width + _GAP), 2), title, fill="black")
    for number, pair in enumerate(pairs):
        top = _LINE + _GAP + number * (height + _LINE + _GAP)
        shown = [pair.one.convert("RGB"), pair.other.convert("RGB")]
        if pair.comparable:
            apart = np.abs(_levels(pair.one) - _levels(pair.other)) * _GAIN
            shown.append(Image.fromarray((apart.clip(0, 1) * 255).astype(np.uint8)))
        for column, picture in enumerate(shown):
            page.paste(picture, (_GAP + column * (width + _GAP), top))
        pen.text((_GAP, top + height), pair.prompt, fill="black")
    return page


def _whole(about: Sequence[Manifest], timings: Sequence[bench.Timing]) -> Mapping[str, tuple[float, float, str]]:
    """What → its value of both bundles, and how it is written."""

    def both(of: Callable[[Manifest], float], form: str) -> tuple[float, float, str]:
        return of(about[0]), of(about[1]), form

    one, other = (timing.percentile(50) * 1e3 for timing in timings)
    return {
        "ms a picture": (one, other, ".4g"),
        "steps": both(lambda each: each.defaults.steps, "d"),
        "MB": both(lambda each: sum(file.size for file in each.files.values()) / 1e6, ".2f"),
        "parameters": both(parameters, ","),
    }


def _row(what: str, one: float, other: float, form: str) -> dict[str, str]:
    return {"": what, "one": format(one, form), "other": format(other, form), "ratio": f"{other / one:.3g}"}


def _part(name: str, about: Sequence[Manifest]) -> dict[str, str]:
    """What each bundle has of a part; empty where it has none."""
    found: dict[str, str] = {"part": name}
    for title, manifest in zip(("one", "other"), about, strict=True):
        part = manifest.parts.get(name)
        files = {file for engine in part.engines.values() for file in engine.files} if part else set()
        megabytes = sum(manifest.files[file].size for file in files) / 1e6
        found |= {
            f"parameters, {title}": f"{part.parameters:,}" if part else "",
            f"precision, {title}": part.precision if part else "",
            f"engines MB, {title}": f"{megabytes:.2f}" if part else "",
            f"passes, {title}": ", ".join(part.passes) if part else "",
        }
    return found


def _levels(picture: Image.Image) -> np.ndarray:
    """float32 (height, width, 3) in [0, 1]."""
    return pixels([picture])[0].astype(np.float32) / 255


def _size(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height} px"
