"""Which precision a part gets: as written, or as what was recorded allows, whole or with islands of fp32."""

import numpy as np
import pytest
import torch

from engines.errors import RecipeError, UnsupportedError
from exporter.recipe.schema import Recipe
from exporter.stages import precision
from exporter.stages.plan import Plan
from exporter.stages.stage import Results
from exporter.stages.store import Store
from tests.exporter import models

RECIPE = """
model: {source: %s}
sampler: {scheduler: EulerDiscreteScheduler, steps: [1], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
components: {vae_decoder: {precision: %s}}
targets: [%s]
checks: {prompts: [a red circle]}
"""


def saved(folder, change):
    vae = models.vae(scaling_factor=0.13025, force_upcast=True)
    with torch.no_grad():
        change(vae.decoder)
    return models.save_sdxl(folder, decoder=vae)


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    """A model whose decoder overflows in fp16."""
    return saved(tmp_path_factory.mktemp("loud"), lambda decoder: decoder.up_blocks[0].resnets[0].conv2.weight.mul_(1e5))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def plan(model, asked, target="tensorrt_rtx", overrides=()):
    return Plan(Recipe.parse(RECIPE % (model, asked, target), "x", overrides=overrides))


def decided(chosen, results):
    """Precision, steps in fp32, and notes."""
    found = chosen.parts["vae_decoder"].precision
    return found.of(results), found.single(results), found.notes(results)


def test_auto_takes_islands_where_the_whole_would_overflow(loud, store):
    chosen = plan(loud, "auto")
    results = Results(store)
    found, steps, (why, where) = decided(chosen, results)
    assert found == "fp16"
    ranges = results[chosen.recorded].ranges
    assert f"auto chose fp16 with islands of fp32, the largest activation seen is {ranges['vae_decoder']:.4g} of 65504" in why
    assert where.startswith(f"vae_decoder: {len(steps)} steps compute in fp32 within fp16, ")
    assert "vae.decoder.up_blocks.0.resnets.0.conv2" in where
    (left,) = (part.precision.left(results) for part in chosen.parts.values() if part.precision.left(results))
    assert left["vae_decoder"] < precision.HALF_HEADROOM * 65504 < ranges["vae_decoder"]
    for case in results[chosen.parts["vae_decoder"].outputs].cases:
        assert np.abs(case.passes["image"] - case.source["image"]).max() < 0.01


def test_auto_takes_fp32_where_islands_would_be_most_of_it(loud, store, monkeypatch):
    chosen = plan(loud, "auto")
    monkeypatch.setattr(precision, "MOST_IN_ISLANDS", 0.01)
    found, steps, (why,) = decided(chosen, Results(store))
    assert (found, steps) == ("fp32", ())
    assert "of the multiplications would have to stay in it" in why


def test_mixed_takes_islands_on_any_target(loud, store):
    chosen = plan(loud, "mixed", "onnxruntime")
    found, _, (where,) = decided(chosen, Results(store))
    assert found == "fp16"
    assert "steps compute in fp32 within fp16" in where


def test_fp16_is_fp16(loud, store):
    chosen = plan(loud, "fp16")
    results = Results(store)
    assert chosen.parts["vae_decoder"].precision.islands is None
    assert decided(chosen, results)[2] == []
    case = results[chosen.parts["vae_decoder"].outputs].cases[0]
    assert not np.isfinite(case.passes["image"]).all()


def test_where_nothing_is_too_large_mixed_is_fp16_byte_for_byte(tiny_sdxl, store):
    files = []
    for asked in ("mixed", "fp16"):
        chosen = plan(tiny_sdxl, asked)
        results = Results(store)
        assert decided(chosen, results)[1] == ()
        (graph,) = chosen.parts["vae_decoder"].graphs.values()
        files.append([file.read_bytes() for file in results[graph].files])
    assert len(files[0]) == 2
    assert files[0] == files[1]


def test_a_weight_beyond_half_keeps_the_whole_in_fp32_or_is_refused(tmp_path, store):
    def change(decoder):
        decoder.up_blocks[0].resnets[0].conv2.weight.mul_(1e7)

    model = saved(tmp_path / "heavy", change)
    chosen = plan(model, "auto")
    found, _, notes = decided(chosen, Results(store))
    assert found == "fp32"
    assert "its weight vae.decoder.up_blocks.0.resnets.0.conv2.weight is beyond that" in notes[0]
    with pytest.raises(UnsupportedError, match=r"conv2\.weight' has \d+ values that are NaN or infinite in fp16"):
        _ = Results(store)[plan(model, "mixed").parts["vae_decoder"].precision.islands]


def test_mixed_needs_a_recording(loud):
    with pytest.raises(RecipeError, match=r"components\.vae_decoder\.precision: mixed keeps in fp32 .*leave checks\.skip out"):
        plan(loud, "mixed", overrides=["checks.skip=no time"]).refuse()
