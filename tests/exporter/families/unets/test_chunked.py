"""Prompts in chunks and with weights, by a text encoder whose numbers can be added up on paper."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from exporter.families.unets.chunked import encode
from exporter.recipe.prompts import Prompts

#: Chunks of three ids; the empty prompt.
EMPTY = [1, 0, 0]


class Encoder:
    """Layer n of three says of every id: the id plus n tenths, once and tenfold; the pooled state is the first id."""

    def __init__(self, *, pooled=True):
        self.pooled, self.calls = pooled, []
        self.final_layer_norm = nn.Identity()

    def __call__(self, ids, *, output_hidden_states, attention_mask=1):
        assert output_hidden_states
        self.calls.append((ids * attention_mask).tolist())
        states = [((ids * attention_mask)[..., None] + layer / 10) * torch.tensor([1.0, 10.0]) for layer in range(4)]
        found = SimpleNamespace(hidden_states=states, last_hidden_state=states[-1] + 100)
        if self.pooled:
            found.text_embeds = ids[:, :1].float()
        return found


def family(*, penultimate=False, **prompts):
    ports = ("prompt_embeds", "pooled")[: 1 + penultimate]
    return SimpleNamespace(
        towers={"text_encoder": "tokenizer"},
        penultimate=penultimate,
        recipe=SimpleNamespace(prompts=Prompts(**prompts)),
        empty=lambda _: EMPTY,
        signature=lambda _: SimpleNamespace(outputs=[SimpleNamespace(name=name) for name in ports]),
    )


def encoded(made, ids, weights=None, *, encoder=None, zeros=False):
    tokens = {"tokenizer_ids": np.array(ids)} | ({} if weights is None else {"tokenizer_weights": np.array(weights, np.float32)})
    return encode(made, SimpleNamespace(text_encoder=encoder or Encoder()), tokens, zeros=zeros)


def first(found):
    """The first channel, to a tenth."""
    return np.round(found["prompt_embeds"][..., 0].astype(float), 4).tolist()


def test_chunks_are_encoded_one_by_one_and_joined():
    encoder = Encoder()
    found = encoded(family(chunks=2), [[[1, 5, 0, 1, 6, 7]]], encoder=encoder)
    assert encoder.calls == [[[1, 5, 0]], [[1, 6, 7]]]
    assert found["prompt_embeds"].shape == (1, 1, 6, 2)
    assert found["prompt_embeds"].dtype == np.float32
    # The last state, which has its norm already: layer 3, and 100.
    assert first(found) == [[[101.3, 105.3, 100.3, 101.3, 106.3, 107.3]]]


def test_every_text_of_every_branch_stands_in_its_place():
    found = encoded(family(), [[[1, 2, 0], [1, 3, 0]], [[1, 4, 0], [1, 5, 0]]])
    assert np.array(first(found))[..., 1].round(1).tolist() == [[102.3, 103.3], [104.3, 105.3]]


@pytest.mark.parametrize(
    ("penultimate", "skip", "layer"),
    [(False, None, 103), (False, 1, 2), (False, 2, 1), (True, None, 2), (True, 1, 1), (True, 2, 0)],
)
def test_layers_are_skipped_from_the_one_that_the_family_takes(penultimate, skip, layer):
    found = encoded(family(penultimate=penultimate, clip_skip=skip), [[[1, 5, 0]]])
    added = 100.3 if layer == 103 else layer / 10
    assert first(found) == [[[pytest.approx(number + added, abs=1e-4) for number in (1, 5, 0)]]]


def test_a_negative_prompt_skips_no_layer():
    found = encoded(family(penultimate=True, clip_skip=1), [[[1, 5, 0], [1, 5, 0]]])
    assert np.array(first(found))[0, :, 1].round(1).tolist() == [5.2, 5.1]
    alone = encoded(family(penultimate=True, clip_skip=1), [[[1, 5, 0]]])
    assert np.array(first(alone))[0, :, 1].round(1).tolist() == [5.1], "a prompt alone is not the negative one"


def test_a_skipped_layer_goes_through_the_final_norm():
    encoder = Encoder()
    encoder.final_layer_norm = nn.Threshold(3.0, -7.0)
    assert first(encoded(family(clip_skip=1), [[[1, 5, 0]]], encoder=encoder)) == [[[-7, 5.2, -7]]]
    inner = Encoder()
    inner.text_model = SimpleNamespace(final_layer_norm=nn.Threshold(3.0, -8.0))
    assert first(encoded(family(clip_skip=1), [[[1, 5, 0]]], encoder=inner)) == [[[-8, 5.2, -8]]]


def test_a1111_multiplies_states_and_keeps_the_mean_of_each_chunk():
    """Layer 2 says 1.2, 5.2 and 0.2, and ten times that: with the second twice, all is brought back by 6.6 / 11.8."""
    found = encoded(family(penultimate=True, chunks=2, weights="a1111"), [[[1, 5, 0, 1, 0, 0]]], [[[1, 2, 1, 1, 1, 1]]])
    scaled = [1.2 * 6.6 / 11.8, 10.4 * 6.6 / 11.8, 0.2 * 6.6 / 11.8]
    assert first(found) == [[[pytest.approx(number, abs=1e-4) for number in (*scaled, 1.2, 0.2, 0.2)]]]


def test_compel_moves_words_away_from_the_empty_prompt():
    found = encoded(family(penultimate=True, chunks=2, weights="compel"), [[[1, 5, 0, 1, 4, 0]]], [[[1, 1.5, 1, 1, 0, 1]]])
    # The empty prompt says 1.2, 0.2 and 0.2: 5.2 goes 1.5 times as far from 0.2, and 4.2 the whole way to it.
    assert first(found) == [[[pytest.approx(number, abs=1e-4) for number in (1.2, 7.7, 0.2, 1.2, 0.2, 0.2)]]]


def test_what_counts_less_in_compel_moves_towards_the_text_without_it():
    """5 counts half: as far from the empty prompt's 0.2, and half of that again is the same of a text in which it is not seen."""
    encoder, made = Encoder(), family(penultimate=True, weights="compel")
    found = encoded(made, [[[1, 5, 0]]], [[[1, 0.5, 1]]], encoder=encoder)
    assert encoder.calls[2:] == [[EMPTY], [[1, 0, 0]]]
    assert first(found) == [[[pytest.approx(number, abs=1e-4) for number in (1.2, (0.2 + 5 / 2 + 0.2) / 2, 0.2)]]]


def test_groups_that_count_less_in_compel_share_by_their_weights():
    wide = SimpleNamespace(**{**vars(family(penultimate=True, weights="compel", chunks=2)), "empty": lambda _: [1, 0, 0, 0]})
    encoder = Encoder()
    # 5 and 6 are one group, past the ends of the chunks; 7 is another.
    ids, weights = [[[1, 4, 5, 2, 1, 6, 7, 2]]], [[[1, 1, 0.5, 1, 1, 0.5, 0, 1]]]
    found = encoded(wide, ids, weights, encoder=encoder)
    assert [call for (call,) in encoder.calls if call != [1, 0, 0, 0]] == [
        [1, 4, 5, 2], [1, 6, 7, 2], [1, 4, 0, 2], [1, 0, 7, 2], [1, 4, 5, 2], [1, 6, 0, 2]
    ]  # fmt: skip
    shares = np.array([1, 1, np.tan((1 - 1e-5) * np.pi / 2)])
    mixed = [shares @ column / shares.sum() for column in ([2.7, 0.2, 2.7], [3.2, 0.2, 3.2], [0.2, 0.2, 0.2])]
    wanted = [1.2, 4.2, mixed[0], 2.2, 1.2, mixed[1], mixed[2], 2.2]
    np.testing.assert_allclose(found["prompt_embeds"][0, 0, :, 0], wanted, atol=1e-3)


def test_without_weights_every_word_counts_once():
    plain = encoded(family(penultimate=True, weights="compel"), [[[1, 5, 0]]])
    np.testing.assert_allclose(plain["prompt_embeds"], encoded(family(penultimate=True), [[[1, 5, 0]]])["prompt_embeds"])
    literal = encoded(family(penultimate=True), [[[1, 5, 0]]], [[[1, 9, 1]]])
    np.testing.assert_allclose(literal["prompt_embeds"], plain["prompt_embeds"], rtol=1e-6)


def test_what_is_pooled_is_the_first_chunk_s():
    found = encoded(family(penultimate=True, chunks=2), [[[8, 5, 0, 9, 6, 7]]])
    assert found["pooled"].tolist() == [[[8]]]
    assert "pooled" not in encoded(family(chunks=2), [[[8, 5, 0, 9, 6, 7]]], encoder=Encoder(pooled=False))


def test_an_empty_first_branch_is_zeros_of_every_port():
    found = encoded(family(penultimate=True), [[EMPTY, [1, 5, 0]]], zeros=True)
    assert not found["prompt_embeds"][:, 0].any()
    assert not found["pooled"][:, 0].any()
    assert found["prompt_embeds"][:, 1].all()
    assert found["pooled"].tolist() == [[[0], [1]]]
