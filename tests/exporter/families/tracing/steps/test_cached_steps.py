"""diffusers' own pipeline under step caching: whole and shallow where the schedule says, with the features that it leaves."""

import numpy as np
import pytest
import torch

from exporter.recipe.sampling import CacheOptions
from exporter.reference.part_outputs import measure
from exporter.reference.record import record
from tests.exporter import equality
from tests.exporter.families.test_traced import family
from tests.exporter.families.tracing.steps.test_blocks import CACHED


def fresh(features):
    """Steps that left a deep feature."""
    return [index for index, feature in enumerate(features) if index == 0 or feature is not features[index - 1]]


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "mode", "rows"),
    [("pixart-sigma", "classifier_free", 2), ("flux-guided", "embedded", 1), ("qwenimage", "classifier_free", 2)],
)
def test_its_features_change_where_a_step_is_whole_and_nothing_is_left_behind(model, name, mode, rows):
    made = family(model(name), mode, text=CACHED)
    reference = made.reference()
    network, scheduler = reference.pipeline.transformer, reference.pipeline.scheduler
    asked = {"height": 32, "width": 32, "num_inference_steps": 9, "output_type": "latent", "generator": torch.Generator()}

    def drawn(**more):
        asked["generator"].manual_seed(3)
        return reference.call(reference.encode(["A red circle"], "Blurry"), 4.0, **asked, **more).images

    cached = drawn()
    assert len(reference.features) == 9
    assert fresh(reference.features) == [0, 3, 6]
    assert reference.features[0].shape == (rows, 32 // made.factor, 32 // made.factor, made.blocks.numbers)
    drawn(cache=CacheOptions(whole=(1, 2, 7)))
    assert fresh(reference.features) == [0, 1, 6]
    plain = drawn(cache=None)
    assert reference.features == []
    every = drawn(cache=CacheOptions(whole=tuple(range(1, 10))))
    equality.close(every, plain)
    assert (cached - plain).norm() / plain.norm() > 1e-3, "cached steps must differ"
    assert "forward" not in vars(network)
    assert "step" not in vars(scheduler)


def test_both_parts_answer_as_the_source_does_on_what_it_left_with_guidance_on_and_off(model):
    made = family(model("pixart-sigma"), text=CACHED)
    recording = record(made, made.recipe)
    assert recording.runs[0].uncached is not None
    assert recording.runs[0].calls(shallow=True) == [1, 2, 4, 5, 7, 8]
    for part in ("transformer", "transformer_shallow"):
        cases = recording.cases[part]
        assert {"guidance off" in case.label for case in cases} == {True, False}
        assert any("deep_feature" in (case.inputs if part.endswith("_shallow") else case.source) for case in cases)
        for case in measure(made.part(part, "fp32"), cases):
            for port, wanted in case.source.items():
                error = np.linalg.norm(case.passes[port] - wanted) / np.linalg.norm(wanted)
                assert error < equality.ROUNDING, f"{part}, {case.label}: {port} {error:.1e}"
