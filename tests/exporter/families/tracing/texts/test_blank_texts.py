"""What is encoded in the place of an empty text, where a tokenizer makes nothing of it."""

import pytest
from tokenizers import Tokenizer
from torch import nn

from engines.signature import Range
from engines.tokenizer import TextTokenizer
from exporter.families.tracing.facts import Survey
from exporter.families.tracing.texts.readings import Reading
from exporter.families.tracing.texts.tokenizer_files import written
from tools.coverage import readers
from tools.coverage.parts import spelling_tokenizer


def surveyed(made, mode):
    for network in made.components.values():
        if isinstance(network, nn.Module):
            network.to("meta")
    return Survey(made, {}, mode, 32, 32, 2)


@pytest.fixture(scope="module")
def survey():
    return surveyed(readers.ernie_image(), "classifier_free")


def test_the_id_is_the_one_that_the_text_encoder_is_given(survey):
    assert {reading.blank for reading in survey.readings.values()} == {
        0
    }  # as the pipeline has it, whose tokenizer begins no text
    assert survey.open["text_hiddens_length"].min == 1
    assert survey.open["tokenizer_length"].max == survey.cut_at["tokenizer"] == 1024


def test_a_tokenizer_that_makes_ids_of_nothing_has_none():
    assert surveyed(readers.z_image(), "none").readings["tokenizer"].blank is None


def test_the_bundle_s_tokenizer_gives_it_and_longer_texts_as_they_are(tmp_path):
    source, some = spelling_tokenizer("Qwen2Tokenizer"), Range(min=1, typical=2, max=9)
    reading = Reading("tokenizer", 9, masked=False, before="", after="", lower=False, special=True, open=some, blank=7)
    _, text = written("tokenizer", reading, source)
    (tmp_path / "tokenizer.json").write_text(text)
    assert Tokenizer.from_str(text).padding["pad_id"] == 7
    found = TextTokenizer(tmp_path / "tokenizer.json", 9, multiple=1).encode(["", "ab"])
    assert found.ids[0].tolist()[: found.lengths[0]] == [7]
    assert found.ids[1].tolist() == source("ab")["input_ids"]
