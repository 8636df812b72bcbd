"""Stage ``text``: two small CLIP-shaped text encoders.

SDXL conditions on pre-trained encoders: the last hidden state but one of both,
side by side, and the pooled projection of the second.  The stand-ins here are
trained to say from exactly those outputs what a caption states; the heads that
read the answers are thrown away and the encoders frozen.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from tools.demo import captions, scenes
from tools.demo.training import words
from tools.demo.training.loop import Plan, Run, fit

BATCH = 128
STEPS = 1500
CAPTION_STREAM = 3
INTERACTION_WEIGHT = 10.0
"""Weight of the ``interaction`` in the loss."""
WIDTH, WIDTH_2 = 64, 96

_SIZES = [None, *scenes.SIZES]
_COLOURS = list(scenes.COLOURS)
_SHAPES: list[str] = list(scenes.SHAPES)
_RELATIONS = [None, *scenes.RELATIONS]
_BACKGROUNDS = [None, *scenes.BACKGROUNDS]
_ABSENT = (len(_SIZES), len(_COLOURS), len(_SHAPES))
_OBJECT_CLASSES = tuple(count + 1 for count in _ABSENT)
CLASSES = (*_OBJECT_CLASSES, *_OBJECT_CLASSES, len(_RELATIONS), len(_BACKGROUNDS))
"""Number of answers to each question about a caption (8 questions)."""


def answers(statement: captions.Statement) -> list[int]:
    """The class of each of the 8 questions; "unsaid" and "absent" are classes."""
    found: list[int] = []
    for size, colour, shape in statement.objects:
        found += [_SIZES.index(size), _COLOURS.index(colour), _SHAPES.index(shape)]
    if len(statement.objects) == 1:
        found += _ABSENT
    relation = _RELATIONS.index(statement.relation)
    return [*found, relation, _BACKGROUNDS.index(statement.background)]


def build(vocabulary: int) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Both encoders, untrained.

    Args:
        vocabulary: Number of tokens; the last two are the start and end tokens.

    """

    def config(width: int, activation: str) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=3,
            num_attention_heads=width // 16,
            max_position_embeddings=words.MAX_TOKENS,
            hidden_act=activation,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            # CLIP draws its weights for widths of 512 and more; at this width
            # its tiny scales would make the start very slow.
            initializer_factor=2.0,
        )

    first = CLIPTextModel(config(WIDTH, "quick_gelu"))
    return first, CLIPTextModelWithProjection(config(WIDTH_2, "gelu"))


class Encoders(nn.Module):
    """Tokenizers and encoders together, as SDXL uses them."""

    def __init__(self, tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]) -> None:
        super().__init__()
        self.tokenizers = tokenizers
        self.first, self.second = build(len(tokenizers[0]))

    def tokens(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids of both tokenizers, int64 (N, 32) each."""
        both = [
            tokenizer(
                texts,
                padding="max_length",
                max_length=words.MAX_TOKENS,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            for tokenizer in self.tokenizers
        ]
        return both[0], both[1]

    def forward(self, ids: torch.Tensor, ids_2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states (N, 32, 160) and pooled embeddings (N, 96)."""
        first = self.first(ids, output_hidden_states=True).hidden_states[-2]
        second = self.second(ids_2, output_hidden_states=True)
        return torch.cat([first, second.hidden_states[-2]], -1), second.text_embeds


class Heads(nn.Module):
    """Linear readers of the answers; used in training only."""

    def __init__(self) -> None:
        super().__init__()
        hidden = WIDTH + WIDTH_2
        self.whole = nn.Linear(hidden, sum(CLASSES))
        self.pooled = nn.Linear(WIDTH_2, sum(CLASSES))
        self.objects = nn.Linear(hidden, sum(_OBJECT_CLASSES))


def _read(values: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared error against one-hot answers, and the share of texts read without error.

    Cross-entropy always gains a little by a colour that speaks against the
    shape it was never seen with, and so teaches a wrong reading of just the
    pairs that training leaves out; the squared error is least without that.
    """
    classes = CLASSES if target.shape[-1] == len(CLASSES) else _OBJECT_CLASSES
    one_hot = torch.cat([functional.one_hot(target[:, i], count) for i, count in enumerate(classes)], -1)
    loss = (values - one_hot).square().sum(-1).mean()
    right = torch.stack([part.argmax(-1) for part in values.split(classes, -1)], -1) == target
    return loss, right.all(-1).float().mean()


def crossed(scene: scenes.Scene, rng: np.random.Generator) -> list[scenes.Scene]:
    """Four scenes with one object's old or a new colour, and old or new shape.

    In the order (old, old), (old, new), (new, old), (new, new) of (colour,
    shape).  All four hold only pairs that training may show.
    """
    seen = scenes.pairs(held_out=False)
    which = int(rng.integers(len(scene.things)))
    thing = scene.things[which]
    others = [
        (colour, shape)
        for colour, shape in seen
        if colour != thing.colour
        and shape != thing.shape
        and {(thing.colour, shape), (colour, thing.shape)}.isdisjoint(scenes.HELD_OUT)
    ]
    colour, shape = others[int(rng.integers(len(others)))]
    return [
        replace(
            scene,
            things=tuple(replace(each, colour=a, shape=b) if index == which else each for index, each in enumerate(scene.things)),
        )
        for a in (thing.colour, colour)
        for b in (thing.shape, shape)
    ]


def crossed_captions(share: int) -> tuple[list[str], torch.Tensor]:
    """Captions of crossed scenes, four after four in the same phrasing, and their answers."""
    texts = []
    for group in range(BATCH // 4):
        rng = np.random.default_rng((CAPTION_STREAM, share, group))
        scene = scenes.sample_scene(rng, 1 if rng.random() < scenes.SHARE_OF_SINGLES else 2)
        four = crossed(scene, rng)
        phrasing = int(rng.integers(2**32))
        texts += [captions.caption(each, np.random.default_rng(phrasing)) for each in four]
    return texts, torch.tensor([answers(captions.parse(text)) for text in texts])


def interaction(outputs: torch.Tensor) -> torch.Tensor:
    """How far crossed captions' outputs are from a sum of a colour's and a shape's share.

    Args:
        outputs: (N, ...) for captions of ``crossed`` scenes, four after four.

    Returns:
        Mean square of old-old - old-new - new-old + new-new, relative to the
        outputs' variance over the captions; 0 if colour and shape just add up.

    """
    both, colour, shape, neither = outputs.unflatten(0, (-1, 4)).unbind(1)
    left = (both - colour - shape + neither).square().mean()
    return left / outputs.detach().var(0).mean()


def train(folder: Path, tokenizers: Path, plan: Plan, *, resume: bool) -> None:
    """Trains both encoders and the heads that are thrown away.

    Three readings are trained: the whole statement from the hidden state of a
    random position at or after the end token, the same from the pooled
    embedding, and each object's own attributes from its shape word, so that
    colour and size are bound to the right object.
    """
    torch.manual_seed(0)
    model = Encoders((words.load(tokenizers / "tokenizer"), words.load(tokenizers / "tokenizer_2")))
    heads = Heads()
    shape_ids = torch.tensor([model.tokenizers[0](shape).input_ids[1] for shape in scenes.SHAPES])

    end_id = cast("int", model.tokenizers[0].eos_token_id)  # one token, of a tokenizer that has one

    def loss_at(share: int) -> tuple[torch.Tensor, dict[str, float]]:
        texts, target = crossed_captions(share)
        ids, ids_2 = model.tokens(texts)
        hidden, pooled = model(ids, ids_2)
        end = (ids == end_id).int().argmax(-1)
        later = end + (torch.rand(BATCH) * (words.MAX_TOKENS - end)).long()
        rows = torch.arange(BATCH)
        loss_end, right = _read(heads.whole(hidden[rows, end]), target)
        loss_later, _ = _read(heads.whole(hidden[rows, later]), target)
        loss_pooled, right_pooled = _read(heads.pooled(pooled), target)
        is_shape = torch.isin(ids, shape_ids)
        own = target[:, :6].reshape(BATCH, 2, 3)
        own = own[own[..., 2] != _ABSENT[2]]
        loss_own, right_own = _read(heads.objects(hidden[is_shape]), own)
        mixed = interaction(hidden) + interaction(pooled)
        figures = {"end": right.item(), "pooled": right_pooled.item(), "own": right_own.item(), "mixed": mixed.item()}
        return loss_end + loss_later + loss_pooled + loss_own + INTERACTION_WEIGHT * mixed, figures

    fit(Run({"encoders": model, "heads": heads}, folder), plan, loss_at, resume=resume)


def load(folder: Path, tokenizers: Path) -> Encoders:
    """The trained encoders of a stage folder, frozen and in evaluation mode."""
    model = Encoders((words.load(tokenizers / "tokenizer"), words.load(tokenizers / "tokenizer_2")))
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    model.load_state_dict(content["modules"]["encoders"])
    return model.eval().requires_grad_(requires_grad=False)
