"""Networks that make more tokens of a longer text are told from those whose Python rounds a share of its length."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engines.errors import UnsupportedError
from engines.signature import Range
from exporter.families.tracing import token_counts
from exporter.families.tracing.following.dry_run import Encoding, Leaf
from exporter.families.tracing.surveying import surveyed
from tools.coverage import bria


class Reader(nn.Module):
    """What is given one row for each of so many tokens that it makes of a text (1, length, 4), twice that many behind."""

    def __init__(self, count: Any) -> None:
        super().__init__()
        self.count, self.inner = count, nn.Identity()

    def forward(self, text: Tensor) -> Tensor:
        return self.inner(torch.zeros(1, self.count(text.shape[1]), 4))


def survey(count: Any, most: int = 1024, *, runs: list[int] | None = None) -> Any:
    network, leaf = Reader(count), Leaf("prompt_embeds", (6, 4), torch.float32, open={0: "prompt_embeds_length"})
    encoded = torch.zeros(1, 6, 4)

    def step(encode: Any) -> None:
        given = encode()
        (runs if runs is not None else []).append(given.shape[1])
        network(given)

    return SimpleNamespace(
        name="APipeline", pipeline=SimpleNamespace(reader=network), components={"denoiser": ["reader"]}, step=step,
        encodings=[Encoding((), {}, encoded)], conditioning=[[leaf]],
        open={"prompt_embeds_length": Range(min=6, typical=min(most, 20), max=most)},
    )  # fmt: skip


@pytest.mark.parametrize(
    "count",
    [
        lambda length: length,
        lambda length: 2 * length + 7,
        lambda length: length + -length % 32,  # filled up to a multiple
        lambda length: math.ceil(length * 1.25 / 4),  # what an expert takes of them
        lambda _length: 12,
    ],
)
def test_tokens_that_grow_as_the_text_does_pass(count: Any):
    runs = list[int]()
    token_counts.refuse_stairs(survey(count, runs=runs))
    assert runs == [6, 134, 774, 902]  # by a power of two, so that what is filled up grows evenly
    token_counts.refuse_stairs(survey(lambda length: length**2, most=9))  # of lengths too close to tell


def test_stairs_are_refused_with_their_heights():
    with pytest.raises(UnsupportedError, match=r"reader \(Reader\) makes 8, 32, 64, 64 tokens of texts of 6, 134, 774, 902 ids"):
        token_counts.refuse_stairs(survey(lambda length: max(8, min(64, length // 32 * 8))))


def test_another_number_of_calls_is_refused():
    found = survey(lambda length: length)
    network = found.pipeline.reader
    network.forward = lambda text: [network.inner(text) for _ in range(text.shape[1])]
    with pytest.raises(UnsupportedError, match=r"computes with 7, 135, 775, 903 tensors of texts of"):
        token_counts.refuse_stairs(found)


def test_of_blocks_that_are_made_alike_one_computes_where_they_are_given_the_same():
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = nn.Linear(4, width)

        def forward(self, text: Tensor, *, scale: int) -> Tensor:
            ran.append(self.layer.out_features)
            return self.layer(text)[..., :4] * scale

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block(4), Block(4), Block(4), Block(8), Block(4)])

        def forward(self, text: Tensor) -> Tensor:
            for number, block in enumerate(self.blocks):
                text = block(text, scale=1 + number // 4)
            return text

    ran, network, found = list[int](), Network(), survey(lambda length: length)
    found.pipeline.reader, found.step = network, lambda encode: network(encode())
    own = network.blocks[0].forward
    token_counts.refuse_stairs(found)
    assert ran == [4, 8, 4] * 4, "once of each, and of the last, which is given another number"
    assert network.blocks[0].forward == own


def test_a_network_that_squeezes_texts_is_refused_before_anything_is_exported():
    made = bria.MADE["bria-fibo2"]()
    for network in ("transformer", "vae", "text_encoder"):
        getattr(made, network).to("meta")
    found = surveyed(made, {}, "classifier_free", 32, 32, 2)
    with pytest.raises(UnsupportedError, match=r"transformer .* makes 16, 32, 32, 32 tokens of texts of 50, 562, 3122, 3634 ids"):
        token_counts.refuse_stairs(found)
