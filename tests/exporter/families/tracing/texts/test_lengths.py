"""Texts that are as long as they are: which lengths a survey finds, and what of ids and masks follows them."""

import numpy as np
import pytest
import torch
from torch import nn

from engines.errors import UnsupportedError
from engines.signature import Range
from exporter.families.tracing.facts import Survey
from exporter.families.tracing.following.dry_run import Encoding, Leaf, TokenCall
from exporter.families.tracing.texts.lengths import OpenLengths
from tools.coverage.models import MADE


@pytest.fixture(scope="module")
def survey():
    made = MADE["qwenimage"]()
    for network in made.components.values():
        if isinstance(network, nn.Module):
            network.to("meta")
    return Survey(made, {}, "classifier_free", 32, 32, 2)


def test_each_branch_has_a_length_of_its_own_up_to_what_the_pipeline_keeps(survey):
    leaves = [leaf for each in survey.conditioning for leaf in each if isinstance(leaf, Leaf)]
    assert [leaf.port_shape for leaf in leaves] == [("prompt_embeds_length", 32), ("negative_prompt_embeds_length", 32)]
    assert [leaf.seen_shape[1] for leaf in leaves] == [32, 32]
    template = 34  # ids, of which the pipeline keeps no states
    found = survey.open
    for name, ids in (
        ("prompt_embeds_length", "tokenizer_length"),
        ("negative_prompt_embeds_length", "negative_tokenizer_length"),
    ):
        assert found[name].max == 512
        assert (found[ids].min - template, found[ids].max - template) == (found[name].min, 512)
        assert found[name].min < found[name].typical < 512


def test_how_each_branch_is_read_is_data(survey):
    readings = survey.readings
    assert {name: (each.tokenizer, each.branch, each.masked) for name, each in readings.items()} == {
        "tokenizer": ("tokenizer", 1, False),
        "negative_tokenizer": ("tokenizer", 0, False),
    }
    assert [each.shape(name, 2) for name, each in readings.items()] == [
        (1, "tokenizer_length"), (1, "negative_tokenizer_length"),
    ]  # fmt: skip
    entry = readings["negative_tokenizer"].entry("negative_tokenizer")
    assert entry is not None
    assert (entry.dim, entry.branch, entry.multiple) == ("negative_tokenizer_length", "negative", 1)
    assert readings["tokenizer"].before.startswith("<|im_start|>system")
    assert readings["tokenizer"].after.endswith("<|im_start|>assistant\n")


def lengths(encoded, most=10**9, frame=0, **options):
    """Of a pipeline whose ids are a text's letters within a frame, and whose states are as many as `encoded` says."""

    def encode(prompt, _negative):
        count = min(len(prompt) + frame, most)
        call = TokenCall("tokenizer", (prompt,), options, torch.zeros(1, count), torch.ones(1, count), again=False)
        return [Encoding((), {}, torch.zeros(1, encoded(count), 4), [call])]

    base = encode("A Xylophone 7", "")
    found = OpenLengths("Toy", base, encode)
    return found, found.of_leaf("prompt_embeds", 0, 0, 0), base[0].tokens[0]


def test_a_length_that_is_rounded_up_has_its_multiple():
    found, dim, call = lengths(lambda count: -(-count // 16) * 16, most=64)
    assert dim == "prompt_embeds_length"
    assert found.ranges[dim] == Range(min=16, typical=64, max=64, multiple=16)
    assert found.of_ids(call) == Range(min=16, typical=64, max=64, multiple=16)


def test_a_text_is_read_as_far_as_its_states_are_kept():
    found, dim, call = lengths(lambda count: min(count - 5, 40), most=100, frame=6)
    assert found.ranges[dim].max == 40
    assert found.of_ids(call) == Range(min=6, typical=45, max=45)


def test_texts_without_a_longest_one_are_refused():
    with pytest.raises(UnsupportedError, match=r"Toy reads texts of any length \(prompt_embeds\), and a graph's has"):
        lengths(lambda count: count)


def test_ids_are_filled_up_on_the_side_of_the_tokenizer(survey):
    reading = survey.readings["tokenizer"]

    class Left:
        padding_side, pad_token_id = "left", 7

    assert [each.tolist() for each in reading.filled(np.array([1, 2, 3]), Left())] == [[1, 2, 3], [1, 1, 1]]
    wide = type(reading)(**{**vars(reading), "open": Range(min=4, typical=4, max=8, multiple=4)})
    assert [each.tolist() for each in wide.filled(np.array([1, 2, 3]), Left())] == [[7, 1, 2, 3], [0, 1, 1, 1]]
    assert (reading.whole, wide.whole) == (False, False)
    assert type(reading)(**{**vars(reading), "open": Range(min=8, typical=8, max=8, multiple=8)}).whole


def test_how_many_ids_of_padding_are_kept_is_noted_and_told_from_rounding_up():
    """As Kandinsky 3 keeps one id behind each text, over which its network takes a mean."""
    found, dim, call = lengths(lambda count: min(count + 1, 128), most=128, frame=1, padding="max_length")
    assert (found.pads(call), found.ranges[dim]) == (1, Range(min=2, typical=128, max=128))
    assert found.of_ids(call) == Range(min=1, typical=127, max=127), "the longest text would have none"
    found, _, call = lengths(lambda count: count, most=128, padding="max_length")
    assert (found.pads(call), found.drives(call)) == (0, True)


def test_an_empty_text_of_no_ids_is_a_length_where_the_pipeline_pads_it():
    """As Lumina 2's negative prompt is read without a template: its networks see padding alone, and the graph nothing."""

    def lettered(padding, more=0):
        def encode(prompt, _negative):
            if not prompt:  # of which torch cannot tell the shape of a network's heads
                raise UnsupportedError("cannot reshape tensor of 0 elements")
            count = min(len(prompt) + more, 64)
            call = TokenCall("tokenizer", (prompt,), {"padding": padding}, torch.zeros(1, 64), torch.ones(1, count), again=False)
            return [Encoding((), {}, torch.zeros(1, count, 4), [call])]

        base = encode("A Xylophone 7", "")
        found = OpenLengths("Toy", base, encode)
        found.of_leaf("prompt_embeds", 0, 0, 0)
        return found, base[0].tokens[0]

    found, call = lettered("max_length")
    assert (found.of_ids(call).min, found.ranges["prompt_embeds_length"].min) == (0, 0)
    found, call = lettered("longest")
    assert (found.of_ids(call).min, found.ranges["prompt_embeds_length"].min) == (1, 1), "its own networks are run on nothing"
    found, call = lettered("max_length", more=2)
    assert (found.of_ids(call).min, found.ranges["prompt_embeds_length"].min) == (3, 3), "signs of its own stand in an empty text"


def test_a_text_that_is_cut_or_filled_to_another_s_length_has_none_of_its_own():
    def encode(prompt, negative):
        counts = [min(len(text), 128) for text in (prompt, negative)]
        calls = [
            TokenCall("tokenizer", (text,), {"padding": "max_length"}, torch.zeros(1, 128), torch.ones(1, count), again=False)
            for text, count in zip((prompt, negative), counts, strict=True)
        ]
        return [Encoding((), {}, [torch.zeros(1, counts[0], 4), torch.zeros(1, counts[0], 4)], calls)]

    base = encode("A Xylophone 7", "A Quokka 3")
    found = OpenLengths("Toy", base, encode)
    assert [found.of_leaf(name, 0, number, 0) for number, name in enumerate(("own", "other"))] == ["own_length"] * 2
    assert [found.drives(call) for call in base[0].tokens] == [True, False]
