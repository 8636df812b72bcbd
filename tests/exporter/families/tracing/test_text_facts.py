"""What a survey finds of texts: who mends them, which lengths are open, and what is fixed."""

from exporter.families.tracing.facts import Survey
from exporter.families.tracing.following import dry_run
from tools.coverage import readers
from tools.coverage.models import MADE


def without_weights(made, *names):
    for name in names:
        getattr(made, name).to("meta")
    return made


def test_a_pipeline_that_mends_texts_by_code_is_told_from_one_that_reads_them(pipeline):
    assert not Survey(pipeline, {}, "embedded", 32, 32, 2).rewrites
    with dry_run.quiet():  # of diffusers about the class that its own is made of
        other = without_weights(MADE["prx"](), "transformer", "vae", "text_encoder")
    assert Survey(other, {}, "classifier_free", 32, 32, 2).rewrites


def test_lengths_are_open_where_texts_are_as_long_as_they_are(pipeline):
    assert Survey(pipeline, {}, "classifier_free", 32, 32, 2).open == {}, "padded to a length of its own"
    made = without_weights(readers.z_image(), "transformer", "vae", "text_encoder")
    found = Survey(made, {}, "classifier_free", 32, 32, 2)
    ids, states = (found.open[name] for name in ("tokenizer_length", "prompt_embeds_length"))
    assert (ids.max, states.max) == (512, 512)
    assert found.cut_at == {}
