"""What a survey of a pipeline finds of its texts: how they are read, how long they are, and what is made of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from engines.signature import Range
from exporter.families.tracing.following import rewriting
from exporter.families.tracing.following.dry_run import NEGATIVE, Encoding, Leaf
from exporter.families.tracing.pictures import image_arguments
from exporter.families.tracing.texts import (
    conditioning,
    empty_texts,
    made_of_masks,
    quoted,
    readings,
    seen_pictures,
    text_processors,
)
from exporter.families.tracing.texts.empty_texts import EmptyText
from exporter.families.tracing.texts.lengths import OpenLengths
from exporter.families.tracing.texts.readings import Reading

#: A text that whoever mends texts changes.
_ODD = "salt &amp; pepper"


class TextFacts(ABC):
    """What a survey finds of texts, by what the pipeline encodes of some.

    Attributes:
        name: of the pipeline.
        pipeline: of diffusers, its networks on the meta device.
        branches: prompts a picture.
        encodings: the calls of its encoder of prompts, for one picture.

    """

    name: str
    pipeline: Any
    branches: int
    encodings: list[Encoding]
    _read: dict[str, set[str]]

    @property
    @abstractmethod
    def longer(self) -> list[Encoding]:
        """What the pipeline encodes of longer texts, for two pictures where it takes two."""

    @abstractmethod
    def encoded(self, prompt: str, negative: str) -> list[Encoding]:
        """What it encodes of other texts, for one picture."""

    @cached_property
    def conditioning(self) -> list[list[Leaf | Any]]:
        """Per call of the encoder, what it returns: a leaf for each tensor that is one a picture, the rest as it is."""
        taken: set[str] = set()
        return [conditioning.leaves(self, place, two, taken) for place, two in enumerate(self.longer)]

    @cached_property
    def rewrites(self) -> bool:
        """Whether the pipeline changes a text by code of its own, beside small letters and blanks, before it is tokenized."""
        tokens = [call for each in self.encoded(_ODD, NEGATIVE) for call in each.tokens]
        return bool(tokens) and not any(_ODD.lower() in text.lower() for call in tokens for text in call.texts)

    @cached_property
    def lengths(self) -> OpenLengths:
        """How long texts are, and what is made of them."""
        return OpenLengths(self.name, self.encodings, self.encoded)

    @property
    def open(self) -> Mapping[str, Range]:
        """Every dimension that is open because texts are as long as they are, and the lengths that it may have."""
        leaves = [leaf for each in self.conditioning for leaf in each if isinstance(leaf, Leaf)]
        own = {f"{name}_length": reading.open for name, reading in self.readings.items() if reading.open}
        return {**own, **(self.lengths.ranges if any(leaf.open for leaf in leaves) else {})}

    @property
    def rewriting(self) -> Mapping[str, Sequence[str]]:
        """Arguments by which it would have prompts written anew, and the components that do nothing else."""
        return rewriting.of(self.pipeline)

    @property
    def cut_at(self) -> Mapping[str, int]:
        """Tokenizers that know no longest text, and how many ids are read of one."""
        return text_processors.cut_at(self.pipeline, self.encodings)

    @property
    def seen(self) -> list[str]:
        """Names of the pictures that the text encoder sees."""
        return seen_pictures.names(self.encodings)

    @cached_property
    def views(self) -> Mapping[str, Mapping[str, image_arguments.Picture]]:
        """By picture the ports that take it in another size than the networks of a step."""
        return seen_pictures.views(self)

    @property
    def readings(self) -> Mapping[str, Reading]:
        """Name of a bundle's tokenizer → how texts are read; raises UnsupportedError where that cannot be data."""
        return dict(self.entries.values())

    @cached_property
    def entries(self) -> Mapping[tuple[str, int], tuple[str, Reading]]:
        """The pipeline's tokenizer and the branch → the bundle's tokenizer, of which there are two where branches differ."""
        given = self.encodings, self.conditioning, self.branches
        found = readings.entries(self.name, *given, self.masked, lambda: self.lengths, lambda: self.quotes)
        return {
            at: (name, empty_texts.read(reading, self.empties.get(at[1]), getattr(self.pipeline, reading.tokenizer)))
            for at, (name, reading) in found.items()
        }

    @cached_property
    def empties(self) -> Mapping[int, EmptyText]:
        """Branch → what the pipeline makes of an empty text, where it does not have it tokenized."""
        return empty_texts.found(self.name, self.pipeline, self.encodings, self.encoded)

    @cached_property
    def quotes(self) -> quoted.Quotes | None:
        """How texts are cut whose ids are made lists of."""
        return quoted.known(self.name, partial(quoted.pieces, self.encodings, partial(self.encoded, negative=NEGATIVE)))

    def masked(self, tokenizer: str) -> bool:
        """Whether the pipeline looks at the mask of what a tokenizer gives, or at what is made of it."""
        return not self._read[tokenizer].isdisjoint(("attention_mask", *made_of_masks.MADE))
