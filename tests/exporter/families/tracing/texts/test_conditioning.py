"""Tensors that an encoder of prompts returns: which of them are ports, under which names."""

from types import SimpleNamespace

import pytest
import torch

from engines.errors import UnsupportedError
from exporter.families.tracing.following.dry_run import Encoding
from exporter.families.tracing.following.own_texts import Zeros
from exporter.families.tracing.texts.conditioning import leaves


class _Pipeline:
    def encode_prompt(self):
        embeds, mask = None, None
        return embeds, mask


def survey(one, *, lone=False):
    return SimpleNamespace(encodings=[Encoding((), {}, one)], pipeline=_Pipeline(), name="Some", lone=lone, cut=False)


def test_what_has_a_row_a_picture_is_a_port_and_the_rest_stays():
    constant = torch.zeros(1, 5)
    found = leaves(survey((torch.ones(2, 3, 4), constant)), 0, Encoding((), {}, (torch.ones(4, 3, 4), constant)), taken := set())
    assert (found[0].name, found[0].times, found[0].port_shape) == ("embeds", 2, (2, 3, 4))
    assert found[1] is constant
    assert taken == {"embeds"}


def test_of_a_pipeline_of_one_text_every_tensor_is_the_picture_s():
    given = torch.ones(2, 3, 4), torch.ones(1, 5, dtype=torch.long)
    found = leaves(survey(given, lone=True), 0, Encoding((), {}, given), set())
    assert [(leaf.name, leaf.times) for leaf in found] == [("embeds", 2), ("mask", 1)]


def test_rows_that_are_no_picture_s_are_refused():
    with pytest.raises(UnsupportedError, match="embeds is \\[3, 4\\] of two pictures and \\[2, 4\\] of one"):
        leaves(survey((torch.zeros(2, 4), None)), 0, Encoding((), {}, (torch.zeros(3, 4), None)), set())


def test_what_is_filled_in_where_nothing_is_read_is_no_port():
    one, two = (torch.ones(1, 3, 4), torch.zeros(1, 5)), (torch.ones(2, 3, 4), torch.zeros(2, 5))
    found = leaves(survey(one), 0, Encoding((), {}, two), taken := set())
    assert found[1] == Zeros((5,), torch.float32)
    assert torch.equal(found[1].made(3), torch.zeros(3, 5))
    assert taken == {"embeds"}
    longer = leaves(survey(one), 0, Encoding((), {}, (two[0], torch.ones(2, 5))), set())
    assert longer[1].name == "mask"
