"""Guidance and caching at some of the steps: checked against diffusers that does the same, and each fault blamed by name."""

import json

import numpy as np
import pytest

from engines import denoising
from engines.bundle import draft, write
from engines.pipeline import Pipeline
from exporter.build import build, check
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import RECIPE, silent, standard_tools_open

pytestmark = [pytest.mark.timeout(2400), pytest.mark.long]
STEPS = RECIPE.replace("steps: [4]", "steps: [9]\n  cache: {every: 3}").replace("5.0}", "5.0, interval: [0.25, 0.8]}")


@pytest.fixture(scope="module")
def stepped(tiny_sdxl, built, tmp_path_factory):
    """A bundle whose middle five of nine steps are guided, and three are whole."""
    folder, text = tmp_path_factory.mktemp("steps"), STEPS.replace("tensorrt_rtx", "openvino") % tiny_sdxl
    return build(Recipe.parse(text, "steps"), folder / "steps", Store(built.store), silent)


def test_the_bundle_does_what_its_table_says(stepped):
    bundle, verdicts = stepped
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    price = [verdict for verdict in verdicts if verdict.stage == "whole → cached"]
    assert all(verdict.values["psnr"] < 80 and verdict.values["ssim"] > 0 for verdict in price)
    assert {verdict.backend for verdict in price} == {"onnxruntime", "openvino"}
    assert standard_tools_open(bundle.folder) == 6
    calls: list[tuple[str, int]] = []

    def counting(part, _backend, network):
        def run(inputs):
            if part.startswith("unet"):
                calls.append((part.removeprefix("unet"), inputs["pooled_prompt_embeds"].shape[1]))
            return network(inputs)

        return run

    for backend in ("onnxruntime", "openvino"):
        with Pipeline.open(bundle.folder, backend, wrap=counting) as pipeline:
            calls.clear()
            made = pipeline.generate("a red circle", seed=3)[0]
            assert [name for name, _ in calls] == ["", "_shallow", "", "_shallow", "_shallow", "", "_shallow", "_shallow", ""]
            assert [count for _, count in calls] == [1, 1, 2, 2, 2, 2, 2, 1, 1]
            calls.clear()
            pipeline.generate("a red circle", seed=3, guidance_scale=1.0)
            assert [count for _, count in calls] == [1] * 9
            weaker = pipeline.generate("a red circle", seed=3, guidance_scale=2)[0]
            assert not np.array_equal(np.asarray(made), np.asarray(weaker))


def test_both_graphs_have_one_set_of_weights(stepped):
    bundle, _ = stepped
    (whole,), (cut,) = (bundle.manifest.parts[name].onnx.values() for name in ("unet", "unet_shallow"))
    assert cut.files[1:] == whole.files[1:]
    size = {name: sum(bundle.manifest.files[file].size for file in graph.files) for name, graph in (("one", whole), ("two", cut))}
    both = sum(bundle.manifest.files[file].size for file in {*whole.files, *cut.files})
    weights = sum(bundle.manifest.files[file].size for file in whole.files[1:])
    assert both - size["one"] == bundle.manifest.files[cut.files[0]].size  # the graph alone, which holds no weights
    assert bundle.manifest.files[cut.files[0]].size < weights


def blamed(bundle):
    verdicts = check(bundle, "onnxruntime", receipt=False)
    return {(verdict.part, verdict.stage, verdict.note) for verdict in verdicts if not verdict.passed}


@pytest.mark.parametrize(
    ("step", "change", "told"),
    [
        (0, {"guided": 1.0}, "guidance scale 5 instead of 1 at step 1 of 9"),
        (5, {"shallow": True}, "step 6 of 9 is shallow, and the source's is whole"),
    ],
)
def test_a_table_that_asks_for_something_else_is_to_blame(stepped, step, change, told):
    bundle, _ = stepped
    file = bundle.folder / "samplers/9.json"
    sound = file.read_text()
    table = json.loads(sound)
    [op for op in table["ops"] if op["op"] == "eval"][step].update(change)
    try:
        file.write_text(json.dumps(table))
        (bundle.folder / "manifest.json").unlink()
        write(bundle.folder, draft(bundle.manifest))
        assert ("sampler", "source → table", told) in blamed(bundle.folder)
    finally:
        file.write_text(sound)
        (bundle.folder / "manifest.json").unlink()
        write(bundle.folder, draft(bundle.manifest))


def test_a_stale_feature_is_blamed_on_the_step_that_used_it(stepped, monkeypatch):
    bundle, _ = stepped
    features = denoising.BoundDenoiser._features

    def first(self, branches):
        kept = self.__dict__.setdefault("first", dict(self._kept))  # what the first whole step left, for ever
        own = features(self, branches)
        return kept if own["deep_feature"].shape == kept["deep_feature"].shape else own

    monkeypatch.setattr(denoising.BoundDenoiser, "_features", first)
    found = blamed(bundle.folder)
    assert {part for part, _, _ in found} == {"end to end"}, "graphs and table are right"
    drifts = [note for _, stage, note in found if stage == "worst step" and note]
    assert any("shallow on the deep feature of step" in note for note in drifts)


@pytest.mark.slow  # test_fused_build.py builds one without it
def test_a_fused_pipeline_has_it_all_in_its_graph_by_a_schedule_that_was_searched(tiny_sdxl, tmp_path):
    text = (
        STEPS.replace("every: 3", "budget: 0.6")
        .replace("[16, 32, 48]", "[32, 32, 32]")
        .replace("[1, 1, 2]", "[1, 1, 1]")
        .replace(", tensorrt_rtx", "")
    )
    text = text.replace("components: {vae_encoder: {}}", "pipeline: fused") % tiny_sdxl
    bundle, verdicts = build(Recipe.parse(text, "fused"), tmp_path / "fused", Store(tmp_path / "store"), silent)
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    cache = Recipe.parse(bundle.manifest.recipe, "again").sampler.cache
    assert cache.whole[0] == 1
    assert (
        f"budget 0.6 was searched, and is cache: {{whole: {list(cache.whole)}, depth: {cache.depth}}}" in bundle.manifest.notes[0]
    )
    weights = [file for file in bundle.manifest.parts["pipeline_9"].onnx["20"].files if file.endswith(".data")]
    assert len(weights) == len(set(weights))
    with Pipeline.open(bundle.folder) as pipeline:
        assert pipeline.generate("a red circle")[0].size == (32, 32)
