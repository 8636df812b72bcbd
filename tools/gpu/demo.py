"""The demo on this machine's GPU: built and checked for each backend, and sampled in parallel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from engines.parallel.picard import Picard
from engines.pipeline import Pipeline
from engines.samplers import Player
from tools.demo.captions import evaluation_prompts
from tools.gpu.record import Gate, Record
from tools.gpu.runners import KINDS

#: Settings of parallel sampling, as `generate --parallel` takes them.
PARALLEL: tuple[str, ...] = ("window=16,tolerance=0.03", "window=25,tolerance=0.03", "window=50,tolerance=0.03")
#: Seconds for one build.
LIMIT = 240


def targets(kind: str) -> str:
    """A recipe's targets, for `--set`."""
    return f"targets={json.dumps([{KINDS[kind].backend: dict(KINDS[kind].options)}])}"


def build(record: Record, work: Path, recipe: str, kind: str, *settings: str) -> Path:
    """`t2iexport build`, which checks what it built on this machine; what it says is the result.

    Raises:
        RuntimeError: it failed; with its last words.

    """
    out, began = work / f"{recipe}-{kind}", time.perf_counter()
    command = [sys.executable, "-c", "from exporter.cli import main; main()", "build", f"recipes/{recipe}.yaml", "-o", str(out)]
    done = subprocess.run(
        [*command, "--set", targets(kind), *(word for each in settings for word in ("--set", each))],
        capture_output=True, text=True, check=False, timeout=LIMIT, env={**os.environ, "XDG_CACHE_HOME": str(work / "cache")},
    )  # fmt: skip
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    record.note(
        "builds", f"{recipe}, {kind}", seconds=round(time.perf_counter() - began, 1), status=done.returncode, said=said[-45:]
    )
    if done.returncode:
        raise RuntimeError("\n".join(said[-12:]))
    return out


def run(kinds: tuple[str, ...], out: Path, work: Path, pictures: int, patience: float) -> None:
    """Build and check the demo for every kind, then time parallel sampling on each."""
    record = Record(out / "demo-bundles.json")
    work.mkdir(parents=True, exist_ok=True)
    gate, made = Gate(work / "gate"), dict[str, Path]()
    for kind in kinds:
        with record.attempt("demo", kind):
            build(record, work, "demo", kind)
        with record.attempt("parallel", kind):
            # One shape of picture and a wide batch, which is what a window is.
            sizes = [f"shapes.{side}=[64,64,64]" for side in ("height", "width")]
            sizes += ["shapes.batch=[1,1,25]", "checks.skip=timed alone; the demo's own bundle is checked"]
            made[kind] = build(record, work, "demo-ddim-100", kind, *sizes)
    record.note("timing", alone=gate.alone(patience))
    for kind, bundle in made.items():
        with record.attempt("parallel", kind):
            record.note("parallel", kind, **parallel(bundle, pictures))
    gate.leave()


def parallel(bundle: Path, pictures: int) -> dict[str, Any]:
    """Seconds per picture, one after the other and in windows, on the same noise; medians over pictures."""
    prompts = evaluation_prompts(500)
    texts = [prompts[index].text for index in np.linspace(0, len(prompts) - 1, pictures).astype(int)]
    found: dict[str, Any] = {}
    with Pipeline.open(bundle) as pipeline:
        defaults = pipeline.bundle.manifest.defaults
        table = pipeline.sampler(defaults.steps, defaults.height, defaults.width)
        encoded = [pipeline.encode([text]) for text in texts]

        def played(player: Player) -> tuple[list[np.ndarray], list[float]]:
            latents, seconds = [], []
            for seed, conditioning in enumerate(encoded):
                draw, began = pipeline.seeded(seed, 1, defaults.height, defaults.width), time.perf_counter()
                latents.append(pipeline.sample(conditioning, draw, player))
                seconds.append(time.perf_counter() - began)
            return latents, seconds

        played(table)  # warms up
        right, before = played(table)
        found["sequential"] = {"steps": defaults.steps, "s": round(float(np.median(before)), 4)}
        for setting in PARALLEL:
            player = Picard.model_validate_strings(dict(pair.split("=") for pair in setting.split(","))).over(table)
            played(player)
            latents, seconds = played(player)
            ratio = [one / other for one, other in zip(before, seconds, strict=True)]
            apart = [float(np.sqrt(np.square(one - other).mean())) for one, other in zip(latents, right, strict=True)]
            found[setting] = {
                "s": round(float(np.median(seconds)), 4),
                "speedup": round(float(np.median(ratio)), 3),
                "iterations": player.efforts[0].iterations,
                "evaluations": player.efforts[0].evaluations,
                "latent_rms": round(float(np.median(apart)), 4),
            }
    return found
