"""The smoke test's results as one Markdown page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TITLES = {"guided": "UNet, batch 2 (guidance)", "plain": "UNet, batch 1", "decoder": "decoder"}


def page(results: Mapping[str, Any]) -> str:
    """Everything that was found: machine, times with ratios first, engines, what failed and with which words."""
    lines = ["# What ran on this GPU", "", *_machine(results.get("environment", {})), ""]
    models = {name: found for name, found in results.items() if isinstance(found, Mapping) and "graphs" in found}
    rows = [row for name, found in models.items() for row in _times(name, found)]
    lines += _table(("model", "what", "who", "times torch eager", "ms, median", "p95", "rounds", "SNR or PSNR to torch"), rows)
    rows = [row for name, found in models.items() for row in _engines(name, found)]
    lines += _table(("model", "network", "engine", "build s", "file GB", "open s", "GPU GB", "SNR to fp32"), rows)
    rows = [row for name, found in models.items() for row in _batches(name, found)]
    lines += _table(("model", "who", "pictures in a batch", "ms", "ms per picture"), rows)
    rows = [row for found in results.values() if isinstance(found, Mapping) for row in _parallel(found)]
    lines += _table(("engine", "sampling", "s per picture", "times sequential", "iterations", "evaluations", "latent rms"), rows)
    if trained := results.get("distill"):
        lines += ["## Distillation", "", *_facts(trained), ""]
    lines += ["## What failed", "", *(list(_failures(results)) or ["Nothing."]), ""]
    return "\n".join(lines)


def _machine(environment: Mapping[str, Any]) -> list[str]:
    libraries = ", ".join(f"{name} {version}" for name, version in environment.get("libraries", {}).items())
    gpu = ", ".join(str(environment[name]) for name in ("gpu", "driver", "cuda", "cudnn") if environment.get(name))
    return [f"{environment.get('processor', '')}, {environment.get('cores', '?')} cores. {gpu or 'No GPU'}.", "", libraries]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    if not rows:
        return []
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join('–' if cell is None else str(cell) for cell in row)} |" for row in rows), ""]


def _times(name: str, found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    places = [(variant, found.get("times", {}).get(variant, {})) for variant in TITLES]
    for variant, times in [*places, ("image", found.get("image", {}))]:
        title = TITLES.get(variant, f"image, {found.get('image', {}).get('steps', '?')} steps and decoder")
        for who, told in times.items():
            if isinstance(told, Mapping):
                yield (
                    name, title, who, told.get("speedup"), told["ms"], told["p95"], told["rounds"],
                    told.get("psnr_db") if variant == "image" else None,
                )  # fmt: skip


def _engines(name: str, found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for variant, engines in found.get("engines", {}).items():
        for kind, told in engines.items():
            keys = ("build_s", "file_gb", "open_s", "gpu_gb", "snr_db")
            yield (name, variant, kind, *(told.get(key) for key in keys))
    for who in ("torch", "torch-compile"):
        for variant, told in found.get(who, {}).items():
            times = told.get("compile_s"), None, told.get("load_s"), told.get("gpu_gb"), told.get("snr_db")
            yield (name, variant, who, *times)


def _batches(name: str, found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for who, batches in found.get("batches", {}).items():
        if isinstance(batches, Mapping):
            for batch, told in batches.items():
                if isinstance(told, Mapping):
                    yield name, who, batch, told["ms"], round(told["ms"] / int(batch), 3)


def _parallel(found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for kind, settings in found.get("parallel", {}).items():
        for setting, told in settings.items():
            if isinstance(told, Mapping):
                yield (kind, setting, *(told.get(key) for key in ("s", "speedup", "iterations", "evaluations", "latent_rms")))


def _facts(found: Mapping[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _facts(value)
        elif name not in {"trace", "error"}:
            yield f"- {name}: {value}"


def _failures(found: Any, place: tuple[str, ...] = ()) -> Iterator[str]:  # noqa: ANN401 - JSON
    if isinstance(found, Mapping):
        if "error" in found:
            message = " ".join(str(found["error"]).split())[:500]
            yield f"- **{' / '.join(place)}**: {message}"
        for name, inner in found.items():
            yield from _failures(inner, (*place, name))
