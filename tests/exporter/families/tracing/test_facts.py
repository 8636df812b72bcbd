"""What a survey of a pipeline finds."""

import pytest

from engines.errors import RecipeError
from exporter.families.tracing.facts import Survey
from exporter.families.tracing.following.dry_run import Leaf
from tests.exporter.families.test_traced import family
from tests.exporter.families.tracing.pipelines.test_two_stages import LARGE, WHOLE
from tools.coverage.models import MADE


def test_two_branches_are_two_calls_of_the_encoder_where_the_pipeline_makes_them(pipeline):
    found = Survey(pipeline, {}, "classifier_free", 32, 32, 2)
    assert found.branches == len(found.encodings) == 2
    named = [[leaf.name if isinstance(leaf, Leaf) else "constant" for leaf in leaves] for leaves in found.conditioning]
    assert named == [
        ["prompt_embeds", "pooled_prompt_embeds", "constant"],
        ["negative_prompt_embeds", "negative_pooled_prompt_embeds", "constant"],
    ]
    assert found.components == {"text": ["text_encoder", "text_encoder_2"], "denoiser": ["transformer"]}
    assert found.image == (32, 32, 3)
    assert found.components["decoder"] == ["vae"]
    assert found.sides(64, 32) == (32, 16)
    assert {name: reading.length for name, reading in found.readings.items()} == {"tokenizer": 77, "tokenizer_2": 512}


def test_guidance_is_off_at_the_number_that_the_pipeline_compares_its_scale_with(pipeline):
    assert Survey(pipeline, {}, "classifier_free", 32, 32, 2).off == 1.0
    other = MADE["krea2"]()
    for name in ("transformer", "vae", "text_encoder"):
        getattr(other, name).to("meta")
    assert Survey(other, {}, "classifier_free", 32, 32, 2).off == 0.0


def test_cells_of_a_first_stage_follow_the_size_and_embeddings_do_not(model):
    cells = family(model("cascade"), text=LARGE).survey
    assert cells.earlier_at(128, 128) == cells.earlier != cells.earlier_at(128, 256)
    embedding = family(model("kandinsky22"), text=WHOLE).survey
    assert embedding.earlier_at(32, 64) == embedding.earlier != ()


def test_several_sizes_of_such_cells_are_refused_with_the_typical_one(model):
    text = LARGE.replace("width: [128, 128, 128]", "width: [128, 128, 256]")
    wanted = r"draws as many cells as the size asks for; write one size, \[128, 128, 128\] and"
    with pytest.raises(RecipeError, match=wanted) as told:
        family(model("cascade"), text=text)
    assert "of which" not in str(told.value), "what is said of each size has no place beside that"
