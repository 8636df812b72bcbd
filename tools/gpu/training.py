"""KOALA's distillation at full size through the real loop: SDXL teaches its own cut, random weights, synthetic latents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.errors import UnsupportedError
from exporter.families import claim
from exporter.models import weights
from exporter.models.resolve import resolve
from exporter.part import Part
from exporter.passes.distill import Distill
from exporter.passes.prune import Prune
from exporter.recipe.schema import Recipe
from exporter.training.context import LATENTS, TrainingContext, plain
from exporter.training.objectives.imitation import Imitation
from exporter.training.trainer import Training, _accelerated
from tools.gpu.record import Gate, Record

#: Pictures that are made up.
PICTURES = 64


def run(
    architecture: str, preset: str, out: Path, work: Path, device: str, *, size: int, steps: int, batch: int, patience: float
) -> None:
    """Train so many steps, and note seconds per step, memory and losses."""
    record = Record(out / "distill.json")
    work.mkdir(parents=True, exist_ok=True)
    gate = Gate(work / "gate")
    record.note(teacher=architecture, student=preset, size=size, batch=batch, wanted=steps)
    with record.attempt("distill"):
        began = time.perf_counter()
        student, lesson = _lesson(architecture, preset, work / "distill", device, size)
        record.note("distill", student=_count(student), teacher=_count(lesson.teacher), prepared_s=_since(began))
        options = Distill(
            data="synthetic", steps=steps, batch=batch, learning_rate=1e-5, warmup=10, features="self_attention",
            mixed_precision="bf16", gradient_checkpointing=True, checkpoint_every=10**9,
        )  # fmt: skip
        with _accelerated(options, lesson.kept) as accelerator:
            training = Training(options, student, lesson, Imitation(options, student, lesson), accelerator)
            record.note("distill", alone=gate.alone(patience), device=str(accelerator.device))
            _watched(training, record)
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            training.run()
            record.note("distill", run_s=_since(began), told=training.outcome, curve=training.metadata)
    gate.leave()


def _watched(training: Training, record: Record) -> None:
    """Note how it goes whenever the losses are fetched, which waits for the device; steps before the first time warm up."""
    note, seen = training._note, [(time.perf_counter(), 0)]  # noqa: SLF001 - to be watched from outside
    first: dict[str, float] = {}

    def timed() -> None:
        if not training._pending:  # noqa: SLF001
            return
        step = training._pending[-1][0]  # noqa: SLF001
        note()
        seen.append((time.perf_counter(), step))
        first.update(first or training._last)  # noqa: SLF001
        (before, done), (now, _) = seen[1] if len(seen) > 2 else seen[0], seen[-1]
        peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
        record.note(
            "distill", steps=step, s_per_step=round((now - before) / (step - done), 4), peak_gb=round(peak, 1),
            fetched_first=dict(first), fetched_last=dict(training._last),  # noqa: SLF001
        )  # fmt: skip

    training._note = timed  # noqa: SLF001


def _lesson(architecture: str, preset: str, folder: Path, device: str, size: int) -> tuple[Part, TrainingContext]:
    text = (
        f"model: {{source: {architecture}, weights: random}}\n"
        "sampler: {scheduler: EulerDiscreteScheduler, steps: [25]}\n"
        f"shapes: {{height: [{size}, {size}, {size}], width: [{size}, {size}, {size}], batch: [1, 1, 1]}}\n"
    )
    recipe = Recipe.parse(text, "distill")
    family: Any = claim(resolve(recipe.model, recipe.root), recipe)
    alone: Any = plain(family, family.checkpoint)
    network = family.checkpoint.skeleton("unet").to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.ndim < 2:
                weights.fill(value, name)
            else:
                value.uniform_(-1, 1, generator=generator).mul_((3 / value[0].numel()) ** 0.5)
    network.eval().requires_grad_(requires_grad=False)
    signature = alone.signature("unet")
    teacher = Part("unet", "denoiser", alone.denoiser(network), signature)
    prune = Prune(preset=preset)  # pyright: ignore[reportArgumentType] - click checked it, or the model says what there is
    source = Part("unet", "denoiser", alone.denoiser(network), signature)
    moved = prune.moved(network.config, {})
    student = prune(source)
    return student, TrainingContext(teacher, family.configs["scheduler"], *_made_up(alone, folder), moved, _kept(folder), print)


def _made_up(family: Any, folder: Path) -> tuple[Path, tuple[str, ...]]:  # noqa: ANN401
    """Latents and conditioning of pictures that nobody drew."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, ports = np.random.default_rng(0), list[str]()
    signature = family.signature("unet")
    extent = {name: allowed.typical for name, allowed in signature.dims.items()} | {"batch": 1}
    for port in signature.inputs:
        shape = signature.shape(port, extent)
        if port.name == "latent":
            np.save(folder / LATENTS, rng.standard_normal((PICTURES, *shape[1:]), np.float32).astype(np.float16))
        elif len(shape) > 2:
            ports.append(port.name)
            np.save(folder / f"{port.name}.npy", rng.standard_normal((1 + PICTURES, *shape[2:]), np.float32).astype(np.float16))
    if not ports:
        raise UnsupportedError("this denoiser takes no text.")
    return folder, tuple(ports)


def _kept(folder: Path) -> Path:
    kept = folder / "kept"
    kept.mkdir(exist_ok=True)
    return kept


def _count(part: Part) -> int:
    return sum(value.numel() for value in part.network.parameters())


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 1)
