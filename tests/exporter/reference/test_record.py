"""Runs of diffusers' own pipelines from noise, from an image and within a mask, and what their tables make of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engines.samplers.table import Table
from exporter.families.sd import Sd
from exporter.families.sdxl import Sdxl
from exporter.parity import compare
from exporter.reference.record import _ranges, record, settings
from exporter.reference.recording import load_run, save_run
from exporter.schedulers.compile_sampler import configure
from tests.exporter import equality, models

# diffusers hands torch tensors to numpy, which numpy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
CASES = {
    "sd": (Sd, models.save_sd, lambda: None, "PNDMScheduler"),
    "sd-tiny": (Sd, models.save_sd, models.tiny_vae, "UniPCMultistepScheduler"),
    "sdxl": (Sdxl, models.save_sdxl, lambda: None, "EulerAncestralDiscreteScheduler"),
}


@pytest.fixture(scope="module", params=CASES)
def recorded(request, tmp_path_factory):
    """A recipe with an encoder, and the recording of its model."""
    kind, save, vae, scheduler = CASES[request.param]
    source = save(tmp_path_factory.mktemp("model"), decoder=vae())
    family = equality.family(kind, source, components=("vae_encoder",))
    sampler = family.recipe.sampler.model_copy(update={"scheduler": scheduler, "steps": (3,)})
    recipe = family.recipe.model_copy(update={"sampler": sampler})
    family = kind(family.checkpoint, recipe)
    return family, recipe, record(family, recipe)


def test_the_last_runs_are_from_an_image_and_within_a_mask(recorded):
    family, recipe, recording = recorded
    plain, masked = recording.runs[-2:]
    assert (plain.setting.label, plain.setting.masked) == ("from an image", False)
    assert (masked.setting.label, masked.setting.masked) == ("within a mask", True)
    assert (plain.setting.strength, masked.setting.strength) == (0.6, 1.0)
    assert all(run.source is None for run in recording.runs[:-2])
    first = recording.runs[0].image[0]
    for run in (plain, masked):
        assert np.abs(run.source.pixels / 255 - first).max() <= 0.5 / 255 + 1e-6
        assert run.source.latent.shape == run.latent.shape
    assert plain.source.anew is None
    assert masked.source.anew.mean() == 0.5
    # What the mask keeps is the image; what it makes anew is not.
    half = masked.latent.shape[3] // 2
    np.testing.assert_allclose(masked.latent[..., :half], masked.source.latent[..., :half], atol=1e-5)
    assert np.abs(masked.latent[..., half:] - masked.source.latent[..., half:]).max() > 0.1
    assert len(settings(recipe.model_copy(update={"components": {}}))) == len(recording.runs) - 2
    assert {case.label.partition(",")[0] for case in recording.cases["vae_encoder"]} >= {"from an image", "within a mask"}
    assert family.roles["vae_encoder"] == "encoder"


def test_tables_do_what_the_pipelines_did(recorded):
    family, recipe, recording = recorded
    own = family.configs["scheduler"]
    sampler = configure(recipe.sampler.scheduler, recipe.sampler.config, 3, 48, 64, own=own)
    starts = sampler.starts()
    for run in recording.runs:
        ops = sampler.table().ops
        if run.source:
            original = compare._original(run)
            ops = starts.alone if original.alone else starts.starts[original.start(3)]
        table = Table(provenance=starts.provenance, ops=ops)
        verdict = compare._table(table, run, {"psnr": 100.0})
        assert verdict.passed, (run.setting.label, verdict)
        if run.source:
            wrong = run.source.latent + np.float32(1)
            moved = type(run)(**{**vars(run), "source": type(run.source)(**{**vars(run.source), "latent": wrong})})
            assert not compare._table(table, moved, {"psnr": 100.0}).passed


def test_a_run_from_an_image_is_kept_whole(recorded, tmp_path):
    for run in recorded[2].runs:
        save_run(run, tmp_path / "run.npz")
        again = load_run(tmp_path / "run.npz")
        assert again.setting == run.setting
        assert (again.source is None) == (run.source is None)
        np.testing.assert_array_equal(again.draws, run.draws)
        if run.source:
            for name, value in vars(run.source).items():
                np.testing.assert_array_equal(getattr(again.source, name), value)


def test_a_scale_that_is_off_is_recorded_as_the_run_time_feeds_it(tmp_path):
    """At 0 diffusers draws the prompt alone, and the network is told 1, at which it does so too."""
    source = models.save_sd(tmp_path / "model")
    found = {}
    for scale in (0.0, 1.0):
        family = equality.family(Sd, source, components=())
        guidance = family.recipe.sampler.guidance.model_copy(update={"scale": scale})
        sampler = family.recipe.sampler.model_copy(update={"guidance": guidance})
        recipe = family.recipe.model_copy(update={"sampler": sampler})
        found[scale] = record(Sd(family.checkpoint, recipe), recipe)
    for off, one in zip(found[0.0].runs, found[1.0].runs, strict=True):
        np.testing.assert_array_equal(off.image, one.image)
    scales = [case.inputs["guidance_scale"].max() for case in found[0.0].cases["unet"]]
    assert set(scales) == {1.0, 3.0}
    for off, one in zip(found[0.0].cases["unet"], found[1.0].cases["unet"], strict=True):
        for name, array in off.inputs.items():
            np.testing.assert_array_equal(array, one.inputs[name])


def test_of_a_part_without_a_network_no_activation_is_seen():
    network = torch.nn.Linear(2, 2)
    with torch.no_grad(), _ranges(SimpleNamespace(components={"unet": network}), ["unet", "vae_decoder"]) as ranges:
        made = network(torch.ones(1, 2))
    assert ranges == {"unet": float(made.abs().amax()), "vae_decoder": 0.0}
