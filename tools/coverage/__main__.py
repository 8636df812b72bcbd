"""`python -m tools.coverage [NAME …]`: build micro models of diffusers' pipelines, and write docs/coverage.md.

Every name of diffusers' own list of pipelines from text to image has a row: how far the worst recorded picture of the torch-free
run time is from diffusers' (guidance on and off, batch 1 and 2, two sizes), or why it is refused. Without names all are built.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import transformers
from diffusers.pipelines import auto_pipeline

from engines.errors import T2IError
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tools.coverage.pipelines import MADE

_ROOT = Path(__file__).parent.parent.parent
_FACTS, _PAGE = Path(__file__).parent / "measured.json", _ROOT / "docs/coverage.md"
_RECIPE = """
model: {source: %s}
sampler: {steps: [2], guidance: %s}
shapes: {height: [64, 64, 64], width: [64, 64, 128], batch: %s}
checks: {prompts: [A red circle, the blue square], negative_prompt: Blurry}
"""
#: From the most that a pipeline may be able to do to the least.
_MODES = ("{mode: classifier_free, scale: 4.0}", "{mode: embedded, scale: 3.5}", "{mode: none}")
_BATCHES = ("[1, 1, 2]", "[1, 1, 1]")
#: Pipelines that families written by hand draw, and that their own tests build.
_OWN = {"stable-diffusion": "sd", "stable-diffusion-xl": "sdxl", "lcm": "sd"}


def measured(name: str) -> dict[str, Any]:
    """Build one micro model in the widest way that works, and say how it went."""
    refusal = ""
    with tempfile.TemporaryDirectory() as folder:
        MADE[name]().save_pretrained(f"{folder}/model")
        for batch in _BATCHES:
            for mode in _MODES:
                recipe = Recipe.parse(_RECIPE % (f"{folder}/model", mode, batch), name)
                try:
                    _, verdicts = build(recipe, Path(folder) / "bundle", Store(Path(folder) / "store"), _silent)
                except T2IError as error:
                    refusal = refusal or str(error).splitlines()[0]
                    continue
                found = [each.values["psnr"] for each in verdicts if each.part == "end to end" and each.stage == "image"]
                return {"guidance": recipe.sampler.guidance.mode, "batch": recipe.shapes.batch[2], "psnr": round(min(found), 1)}
    return {"refused": refusal.replace(folder, "…")}


def page(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of every name."""
    rows = []
    for name, kind in auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.items():
        fact = facts.get(name)
        if name in _OWN:
            told = f"family `{_OWN[name]}`"
        elif fact is None:
            told = "not tried: it has no micro model yet"
        elif "psnr" in fact:
            told = f"{fact['psnr']} dB, guidance {fact['guidance']}, batch up to {fact['batch']}"
        else:
            told = f"refused: {fact['refused']}"
        rows.append(f"| {name} | {kind.__name__} | {told} |")
    built = sum(name in _OWN or "psnr" in facts.get(name, {}) for name in auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING)
    return "\n".join(
        [
            "# Which pipelines of diffusers build",
            "",
            f"Of the {len(rows)} names of `AutoPipelineForText2Image` in diffusers {diffusers.__version__} {built} build.",
            "A micro model with random weights is built, checked, and played by ONNX Runtime on diffusers' noise, in fp32 and in",
            "two steps; the figure is of the worst picture, of guidance on and off, batch 1 and 2, and two sizes.",
            "Written by `python -m tools.coverage`.",
            "",
            "| name | pipeline | |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _silent(*_: object, **__: object) -> None:
    """Report nothing."""


def main() -> None:
    """Build what is asked for, keep the figures, and write the page."""
    diffusers.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    facts = json.loads(_FACTS.read_text()) if _FACTS.exists() else {}
    for name in sys.argv[1:] or MADE:
        facts[name] = measured(name)
        print(name, facts[name], flush=True)
        _FACTS.write_text(json.dumps(dict(sorted(facts.items())), indent=1) + "\n")
    _PAGE.write_text(page(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
