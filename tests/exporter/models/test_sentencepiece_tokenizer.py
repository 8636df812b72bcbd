"""A tokenizer that is Python code over a model of SentencePiece, as a `tokenizers` one."""

import string
from itertools import pairwise

import pytest

from engines.errors import UnsupportedError
from exporter.models.sentencepiece_tokenizer import converted
from exporter.models.tokenizer_text import padded
from tools.coverage import newcomers


class Merging:
    """SentencePiece's own way, spelled out: the pair of neighbours that makes the likeliest piece becomes it, until none does."""

    pad_token, pad_token_id, padding_side = "<unk>", 0, "left"

    def __init__(self, more=lambda text: text, **normalizer):
        self.vocab_file, self._more = str(newcomers.pieces(**normalizer)), more
        self._before = "▁" if normalizer.get("add_dummy_prefix", True) else ""
        signs = (*newcomers.MERGED, "▁", *string.ascii_lowercase)
        self._ids = {piece: [259 + number] for number, piece in enumerate(signs)}

    def build_inputs_with_special_tokens(self, ids):
        return [290, 291, *ids, 2]

    def __call__(self, text):
        parts = list((self._before if text else "") + self._more(text).replace(" ", "▁"))
        while pairs := [place for place, pair in enumerate(pairwise(parts)) if "".join(pair) in newcomers.MERGED]:
            best = min(pairs, key=lambda place: newcomers.MERGED.index("".join(parts[place : place + 2])))
            parts[best : best + 2] = ["".join(parts[best : best + 2])]
        ids = [number for part in parts for number in self._ids.get(part, [3 + each for each in part.encode()])]
        return {"input_ids": self.build_inputs_with_special_tokens(ids)}


@pytest.mark.parametrize("normalizer", [{}, {"add_dummy_prefix": False}])
@pytest.mark.parametrize("text", ["a red circle", "red", "Ä  re cire", "", "🙂"])
def test_it_reads_as_the_model_of_sentencepiece_says(normalizer, text):
    source = Merging(**normalizer)
    assert converted(source).encode(text).ids == source(text)["input_ids"]


def test_what_its_code_does_besides_is_refused():
    with pytest.raises(UnsupportedError, match="what its Python code does besides is not built"):
        converted(Merging(more=str.lower))


def test_one_without_such_a_model_is_refused():
    source = Merging()
    source.vocab_file = "vocab.txt"
    with pytest.raises(UnsupportedError, match="reads texts by Python code of its own"):
        converted(source)


def test_a_bundle_s_file_of_it_pads_on_its_side():
    assert '"direction":"Left"' in padded(Merging(), 8)
