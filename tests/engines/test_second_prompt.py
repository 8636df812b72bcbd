"""What a second text encoder reads: the second prompt where there is one, else the first."""

from contextlib import contextmanager

import numpy as np
import pytest
from click.testing import CliRunner

from engines.__main__ import generate
from engines.errors import UnsupportedError
from engines.images.provenance import ImageProvenance
from engines.pipeline import Pipeline
from engines.signature import Port
from tests.engines import small

TOKENIZERS = ("tokenizer", "tokenizer_2")


def two(mode: str = "classifier_free") -> dict:
    """Changes that give the draft a second tokenizer, and a text encoder that reads it and the first."""
    made = small.draft(mode)
    entry = made.tokenizers["tokenizer"]
    (ids,) = made.parts["text_encoder"].signature.inputs
    second = ids.model_copy(update={"name": "tokenizer_2_ids"})
    embeds = Port(name="prompt_embeds", shape=("batch", ids.shape[1], 1))
    return {
        "mode": mode,
        "tokenizers": {
            "tokenizer": entry,
            "tokenizer_2": entry.model_copy(update={"feeds": "tokenizer_2_ids"}),
        },
        "parts": {**made.parts, "text_encoder": small.part("text", (ids, second), (embeds,), {})},
    }


@pytest.fixture
def pair(tmp_path):
    bundle = small.make(tmp_path / "two", **two())
    networks = small.networks(bundle)
    first = networks["text_encoder"]

    def text(inputs):
        other = first({**inputs, "tokenizer_ids": inputs["tokenizer_2_ids"]})
        return {name: array + 3 * other[name] for name, array in first(inputs).items()}

    return Pipeline(bundle, {**networks, "text_encoder": text})


def ids(pipeline, *texts, **seconds):
    tokens = pipeline.tokenize(*texts, **seconds)[0]
    return [tokens[f"{name}_ids"] for name in TOKENIZERS]


def test_the_second_reads_its_own_prompt_or_the_first(pair):
    (first, second), (sea, _) = ids(pair, ["a red square"] * 2, "the sea"), ids(pair, ["a sea"] * 2, "blue")
    assert np.array_equal(first, second)
    found = ids(pair, ["a red square"] * 2, "the sea", prompt_2=["a sea", ""], negative_prompt_2=["", "blue"])
    assert np.array_equal(found[0], first)
    assert np.array_equal(found[1], [[first[0, 0], sea[0, 1]], [sea[1, 0], first[1, 1]]])


def test_pictures_say_what_it_read_and_are_made_again(pair, monkeypatch, tmp_path):
    @contextmanager
    def opened(*_, **__):
        yield pair

    monkeypatch.setattr(Pipeline, "open", opened)

    def run(*arguments):
        done = CliRunner().invoke(generate, [str(pair.bundle.folder), *map(str, arguments)], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    second = ("--prompt-2", "the sea", "--negative-prompt", "red", "--negative-prompt-2", "blue")
    run("a square", *second, "-o", tmp_path / "a.png")
    run("--from", tmp_path / "a.png", "-o", tmp_path / "b.png")
    run("a square", "--negative-prompt", "red", "-o", tmp_path / "c.png")
    made = [ImageProvenance.read(tmp_path / f"{name}.png") for name in "abc"]
    assert [(one.prompt_2, one.negative_prompt_2) for one in made] == [("the sea", "blue")] * 2 + [(None, None)]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_one_a_prompt_or_one_a_picture(pair):
    made = pair.generate(["a square", "a circle"], images_per_prompt=2, prompt_2=["sea", "red"])
    assert [one.info["prompt_2"] for one in made] == ["sea", "sea", "red", "red"]
    with pytest.raises(UnsupportedError, match="3 prompt 2s for 2 prompts"):
        pair.generate(["a square", "a circle"], prompt_2=["sea", "red", "blue"])


def test_without_a_second_encoder_or_what_it_would_read_with_it_is_refused(pipeline, pair, tmp_path):
    with pytest.raises(UnsupportedError, match="one text encoder, so a second prompt has no effect"):
        pipeline.generate("a square", prompt_2="sea")
    with pytest.raises(UnsupportedError, match="no effect without a first"):
        pair.generate("a square", negative_prompt_2="sea")
    bundle = small.make(tmp_path / "alone", **two("none"))
    with pytest.raises(UnsupportedError, match="a negative prompt has no effect"):
        Pipeline(bundle, small.networks(bundle)).generate("a square", negative_prompt_2="sea")
