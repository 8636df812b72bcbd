"""Pipelines of classes: how many there are, and the label as an input that every part of the product knows."""

import numpy as np
import pytest
import torch

from exporter.families.tracing.following.origins import STEP, origins
from exporter.families.tracing.whole_numbers import as_called, classes, entries, given, levels, noising
from exporter.reference.part_outputs import measure
from exporter.reference.record import record
from tests.exporter import equality
from tests.exporter.families.test_traced import family
from tools.coverage.models import BESIDE


@pytest.fixture(scope="module", params=["dit", "consistency-model", "ddpm"])
def made(request):
    return request.param, BESIDE[request.param]()


def test_the_number_of_classes_is_the_network_s(made):
    name, pipeline = made
    count = {"dit": 1000, "consistency-model": 10, "ddpm": 0}[name]
    assert classes(pipeline) == count
    asked = given(pipeline, 2, {"class_labels": torch.tensor([3, 4])})
    if not count:
        assert entries(pipeline) == asked == {}
        return
    (entry,) = entries(pipeline).values()
    assert (entry.kind, entry.minimum, entry.maximum, entry.default) == ("integer", 0, count - 1, None)
    assert asked["class_labels"].tolist() == [3, 4]
    assert given(pipeline, 2, {})["class_labels"].tolist() == [0, 0]


def test_a_level_has_a_default_and_ends_where_the_pipeline_says():
    pipeline = BESIDE["stable-diffusion-x4-upscaler"]()
    assert levels(pipeline) == {"noise_level": (20, 350)}
    (entry,) = entries(pipeline).values()
    assert (entry.kind, entry.minimum, entry.maximum, entry.default) == ("integer", 0, 350, 20)
    assert given(pipeline, 2, {})["noise_level"].tolist() == [0, 0]
    assert as_called(pipeline, {"noise_level": np.array([7, 7])}) == {"noise_level": 7}  # diffusers takes one for all
    assert noising(pipeline) == {"low_res_scheduler"}
    assert as_called(BESIDE["dit"](), {"class_labels": np.array([7, 8])}) == {"class_labels": [7, 8]}


#: Model → mode of guidance; consistency models draw pixels, DiT steps two branches as one batch.
MODES = {"dit": "classifier_free", "consistency-model": "none"}
ONE_SIZE = """
model: {source: %s}
sampler: {steps: [2], guidance: %s}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 2]}
"""


@pytest.mark.parametrize("name", MODES)
def test_parts_answer_as_diffusers_for_the_classes_that_were_asked_for(name, tmp_path):
    BESIDE[name]().save_pretrained(tmp_path / "model")
    found = family(tmp_path / "model", MODES[name], text=ONE_SIZE)
    assert [port.name for port in found.signature(next(iter(found.roles))).inputs][:3] == ["latent", "timestep", "class_labels"]
    recording = record(found, found.recipe)
    asked = [run.inputs["class_labels"] for run in recording.runs]
    assert all(each.dtype == np.int64 for each in asked)
    assert len({*map(int, np.concatenate(asked))}) > 1, "one class alone would not show that another is drawn"
    assert {run.setting.prompts for run in recording.runs} == {("",), ("", "")}
    for part in found.roles:
        for case in measure(found.part(part, "fp32"), recording.cases[part]):
            for port, wanted in case.source.items():
                assert wanted.std() > 1e-4, "a dead network proves nothing"
                assert np.linalg.norm(case.passes[port] - wanted) / np.linalg.norm(wanted) < equality.ROUNDING, case.label


def test_a_level_of_noise_in_an_embedding_ends_where_its_scheduler_s_times_do():
    assert levels(BESIDE["stable-unclip-img2img"]()) == {"noise_level": (0, 999)}
    assert noising(BESIDE["dit"]()) == set()


def test_a_class_is_the_step_s_and_a_level_of_the_pictures_side():
    level = given(BESIDE["stable-diffusion-x4-upscaler"](), 1, {})["noise_level"]
    label = given(BESIDE["dit"](), 1, {})["class_labels"]
    assert (origins(level), origins(label)) == ({"noise_level"}, {STEP})
