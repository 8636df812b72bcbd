"""A transformer that caches between steps goes from its folder to a checked bundle, which runs its first blocks at most steps."""

import diffusers
import pytest
from click.testing import CliRunner

from engines import denoising
from engines.bundle import Bundle
from engines.pipeline import Pipeline
from exporter.build import build, check
from exporter.cli import verbs
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import silent
from tests.exporter.families.test_traced import MODES
from tests.exporter.families.tracing.steps.test_blocks import CACHED
from tools.coverage.models import MADE
from tools.coverage.parts import alive

pytestmark = [pytest.mark.timeout(2400), pytest.mark.long]


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A Stable Diffusion 3 of which every third of nine steps is whole."""
    folder = tmp_path_factory.mktemp("cached")
    MADE["stable-diffusion-3"]().save_pretrained(folder / "model")
    recipe = Recipe.parse(CACHED % (folder / "model", MODES["classifier_free"]), "cached")
    return build(recipe, folder / "bundle", Store(folder / "store"), silent)


def ran(*words):
    """The command, which ends well."""
    done = CliRunner().invoke(verbs, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def deeper(name):
    """A micro model; of Sana one with a block for shallow steps and one for the others."""
    pipeline = MADE[name]()
    if name == "sana":
        config = {**pipeline.transformer.config, "num_layers": 2}
        pipeline.register_modules(transformer=alive(diffusers.SanaTransformer2DModel.from_config(config)))
    return pipeline


def test_the_bundle_draws_what_diffusers_draws_with_the_same_caching(cached):
    _, verdicts = cached
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    images = [verdict.values["psnr"] for verdict in verdicts if verdict.part == "end to end" and "image" in verdict.stage]
    assert images
    assert min(images) >= 60
    price = [verdict.values["psnr"] for verdict in verdicts if verdict.stage == "whole → cached"]
    assert price
    assert max(price) < 60, "caching must be seen"


def test_two_graphs_of_one_set_of_weights_are_called_as_the_schedule_says(cached):
    bundle, _ = cached
    (whole,), (cut,) = (bundle.manifest.parts[name].onnx.values() for name in ("transformer", "transformer_shallow"))
    assert cut.files[1:] == whole.files[1:]
    calls: list[str] = []

    def counting(part, _backend, network):
        def run(inputs):
            calls.append(part)
            return network(inputs)

        return run

    with Pipeline.open(bundle.folder, "onnxruntime", wrap=counting) as pipeline:
        pipeline.generate("a red circle", seed=3)
    denoiser = [part.removeprefix("transformer") for part in calls if part.startswith("transformer")]
    assert denoiser == ["", "_shallow", "_shallow"] * 3


def test_a_stale_residual_is_blamed_on_the_step_that_used_it(cached, monkeypatch):
    bundle, _ = cached
    features = denoising.BoundDenoiser._features

    def first(self, branches):
        kept = self.__dict__.setdefault("first", dict(self._kept))  # what the first whole step left, for ever
        own = features(self, branches)
        return kept if own["deep_feature"].shape == kept["deep_feature"].shape else own

    monkeypatch.setattr(denoising.BoundDenoiser, "_features", first)
    found = [verdict for verdict in check(bundle.folder, "onnxruntime", receipt=False) if not verdict.passed]
    assert {verdict.part for verdict in found} == {"end to end"}, "graphs and table are right"
    drifts = [verdict.note for verdict in found if verdict.stage == "worst step"]
    assert any("shallow on the deep feature of step" in (note or "") for note in drifts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode", "asked"),
    [
        ("pixart-sigma", "classifier_free", "{budget: 0.75}"),
        ("flux-guided", "embedded", "{floor: 40 dB}"),
        ("sana", "classifier_free", "{every: 3}"),
        ("lumina2", "classifier_free", "{every: 3}"),  # the text's tokens before the picture's
        ("z-image", "classifier_free", "{every: 3}"),  # and behind them
    ],
)
def test_the_command_builds_checks_and_draws_with_what_is_asked_or_found(name, mode, asked, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    deeper(name).save_pretrained(tmp_path / "model")
    recipe, bundle, picture = (tmp_path / each for each in ("micro.yaml", "bundle", "drawn.png"))
    recipe.write_text(CACHED.replace("{every: 3}", asked) % (tmp_path / "model", MODES[mode]))
    ran("build", recipe, "-o", bundle)
    ran("check", bundle)
    negative = ["--negative-prompt", "Blurry"] if mode == "classifier_free" else []
    ran("generate", bundle, "a red circle", "-o", picture, "--height", 32, "--width", 48, *negative)
    assert picture.stat().st_size
    manifest = Bundle.open(bundle).manifest
    (images,) = (verdict.values["psnr"] for verdict in manifest.verdicts if verdict.stage == "image")
    assert images >= 90
    assert any(verdict.stage == "whole → cached" for verdict in manifest.verdicts)
    cache = Recipe.parse(manifest.recipe, "again").sampler.cache
    if "every" in asked:
        assert cache.every == 3
    else:
        assert cache.whole[0] == 1
        assert f"was searched, and is cache: {{whole: {list(cache.whole)}, depth: {cache.depth}}}" in manifest.notes[0]
