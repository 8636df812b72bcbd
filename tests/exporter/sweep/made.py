"""A sweep that was never run: points whose figures follow from their levels, and pictures of one colour each."""

import numpy as np
from PIL import Image

from exporter.sweep.points import points
from exporter.sweep.result import BuildFacts, Measured, PointResult
from exporter.sweep.run import SweptPoint
from exporter.sweep.spec import load

RECIPE = """\
model: {source: x}
sampler: {scheduler: EulerDiscreteScheduler, steps: [25, 8, 4]}
shapes: {height: [32, 32, 64], width: [32, 32, 64]}
"""
SWEEP = """\
recipe: base.yaml
axes:
  network:
    whole: {}
    <half>: {components.unet.passes: [prune: {preset: koala-700m}]}
  sampler.scheduler: [EulerDiscreteScheduler, DDIMScheduler]
  run.steps: [25, 8, 4]
  precision:
    fp32: {}
    bf16: {components.unet.precision: bf16}
    fp8: {components.unet.precision: fp8}
constraints: [latency < 100 ms, memory < 1 GB, latency < 1 ms]
measures: {prompts: [a red circle, a </script> square, a star], scores: [psnr, ssim], shown: 2}
"""
CALLS = {"25": 25, "8": 8, "4": 4}


def result(point, asked, folder):
    """Fewer steps, half a network and another scheduler cost some quality, each by itself."""
    if point.problem:
        return PointResult(plan="p", task="t", failed="recipe", failure=point.problem)
    half, ddim, bf16 = ("<half>" in point.levels["network"], "DDIM" in point.name, "bf16" in point.name)
    calls = CALLS[point.levels["run.steps"]]
    quality = 40.0 - 3 * half - 2 * ddim - 10 / calls
    each = np.linspace(-1, 1, len(asked.prompts))
    seconds = 0.01 * calls * (0.5 if half else 1) * (0.9 if bf16 else 1)
    names, changed = [], not point.is_base
    for index in range(asked.measures.shown):
        names.append(f"{point.digest}-{index}.webp")
        colour = (int(255 * half), int(10 * calls), 120 * (index + 1))
        Image.new("RGB", (16, 16), colour).save(folder / names[-1], lossless=True)
    return PointResult(
        plan="p",
        task="t",
        build=BuildFacts(seconds=1, whole_seconds=60, size=4e7 / (1 + half), parameters=9e6 / (1 + half), multiply_adds={}),
        measured=Measured(
            seconds=tuple(seconds * (1 + 0.01 * each)),
            base_seconds=tuple(0.25 * (1 + 0.01 * each)),
            memory=int(5e8 / (1 + half)),
            evaluations=calls,
            multiply_adds=calls * 1e9,
            scores={"psnr": tuple(quality + each), "ssim": tuple(0.9 + 0.01 * each)} if changed else {},
            pictures=tuple(names),
        ),
    )


def swept(folder, text=SWEEP):
    """The sweep's file as it was read, and its points with results; pictures lie in `pictures`."""
    (folder / "base.yaml").write_text(RECIPE)
    (folder / "mine.yaml").write_text(text)
    (folder / "pictures").mkdir()
    asked = load(folder / "mine.yaml")
    return asked, tuple(SweptPoint(point, result(point, asked, folder / "pictures")) for point in points(asked))
