"""Prompts for pipelines that want a single text: what is written into a text, what a check is asked, and parts that answer."""

import numpy as np
import pytest

from engines.errors import RecipeError
from exporter.families.tracing.pipelines.one_text import TextList, checked
from exporter.reference.part_outputs import measure
from exporter.reference.record import record
from tests.exporter import equality
from tests.exporter.families.test_traced import family

ALONE = """
model: {source: %s, call: {max_sequence_length: 260}}
sampler: {steps: [2], guidance: %s}
shapes: {height: [32, 32, 32], width: [32, 32, 48], batch: [1, 1, 1]}
checks: {prompts: [A red circle, the blue square], negative_prompt: Blurry}
"""


def test_a_list_that_is_written_into_a_text_is_the_text_and_known_to_have_been():
    prompts = TextList(["a cat", "a dog"])
    assert (list(prompts), prompts.written) == (["a cat", "a dog"], False)
    assert f"[Generate]: {prompts}" == "[Generate]: a cat"
    assert prompts.written
    assert "{}!".format(TextList(["a cat"])) == "a cat!"


def test_a_pipeline_that_compares_the_types_of_its_prompts_is_given_lists(model):
    survey = family(model("lumina2")).survey
    assert (survey.lone, survey.texts) == (False, list)
    assert all(
        type(each) is list for call in survey.encodings for each in (*call.args, *call.kwargs.values()) if isinstance(each, list)
    )


def _single(prompt, *, height):
    if not isinstance(prompt, str):
        raise TypeError("a text, please")
    if height % 8:
        raise ValueError("height")


def test_a_check_may_want_a_single_text_and_says_what_else_is_wrong():
    checked(_single)(TextList(["a cat"]), height=8)
    with pytest.raises(TypeError, match="a text, please"):  # what it said first of what it was asked
        checked(_single)(TextList(["a cat"]), height=9)
    with pytest.raises(TypeError, match="a text, please"):
        checked(_single)(["a cat"], height=8)


@pytest.mark.parametrize(("name", "mode"), [("dreamlite", "classifier_free"), ("dreamlite-mobile", "none")])
def test_a_pipeline_of_one_text_answers_part_by_part_as_diffusers(model, name, mode):
    made = family(model(name), mode, text=ALONE)
    assert made.survey.lone
    readings = made.survey.readings.values()
    assert [reading.before.rpartition(">user\n")[2] for reading in readings] == ["", "[Generate]: "][-len(readings) :]
    assert [scale.off for scale in made.guidance.scales] == [None] * (mode != "none"), "it runs both branches at any scale"
    recording = record(made, made.recipe)
    for part in made.roles:
        for case in measure(made.part(part, "fp32"), recording.cases[part]):
            for port, wanted in case.source.items():
                assert wanted.dtype == np.int64 or wanted.std() > 1e-4, "a dead network proves nothing"
                error = np.linalg.norm(case.passes[port] - wanted) / np.linalg.norm(wanted)
                assert error < equality.ROUNDING, f"{part}, {case.label}: {port} {error:.1e}"


def test_batches_of_one_prompt_are_refused_with_what_to_write(model):
    with pytest.raises(RecipeError, match=r"DreamLiteMobilePipeline takes one prompt, for one picture; write \[1, 1, 1\]"):
        family(model("dreamlite-mobile"), "none", text=ALONE.replace("batch: [1, 1, 1]", "batch: [1, 1, 2]"))
