"""Pictures that a text encoder sees: the places in a text that stand for them, and what is put there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engines.errors import UnsupportedError
from engines.inputs import Preprocessing
from exporter.families.tracing.following import dry_run, own_texts
from exporter.families.tracing.following.origins import origins
from exporter.families.tracing.pictures import patches
from exporter.families.tracing.pictures.image_arguments import PLAIN, Picture, Shown
from exporter.families.tracing.pictures.patches import Patches
from exporter.families.tracing.texts import text_processors

#: The argument of a pipeline's encoder of prompts that says how many ids are read, of a processor that cuts nothing off.
_MOST = "max_sequence_length"
#: By which transformers leaves out a comparison of how many places and how many patches there are, which no graph holds.
_UNCHECKED = "TRANSFORMERS_DISABLE_TORCH_CHECK"


@dataclass(frozen=True)
class SeenPictures:
    """The pictures of every text that one call of a processor reads.

    Attributes:
        names: inputs that they are, in their order in a text.
        makers: what is made of each.
        filters: by which the pipeline has resized each; None of one that is as it comes.
        token: what stands for a picture in a text, as often as the text encoder has tokens of it.
        reserved: that and whatever else its processor puts something of its own for, as for a video.

    """

    names: tuple[str, ...]
    makers: tuple[Patches, ...]
    filters: tuple[str | None, ...]
    token: str
    reserved: tuple[str, ...]

    def written(self, text: str) -> str:
        """A text in which every picture stands once, with each as often as it has tokens."""
        first, *rest = text.split(self.token)
        return first + "".join(self.token * made.tokens + each for made, each in zip(self.makers, rest, strict=True))

    def beside(self, given: Mapping[str, Tensor], pictures: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """What a processor gives: ids and their mask, (texts, length) each, and the pictures.

        `pictures`: patches of one text's; None: blanks, some for each text.
        """
        texts = int(given["input_ids"].shape[0])
        own = [made.blank(1) for made in self.makers] * texts if pictures is None else list(pictures)
        grids = torch.cat([made.grids(1) for made in self.makers] * texts)
        return {**given, "pixel_values": torch.cat(own), "image_grid_thw": grids}

    def patched(self, values: Mapping[str, Tensor], ports: Mapping[str, tuple[str, Preprocessing]]) -> list[Tensor]:
        """Patches of one text's pictures, of what a bundle is fed, (1, height, width, 3) by port.

        `ports`: by input the one that the text encoder takes, and how what it is fed was prepared.
        """
        pictures = (
            patches.levels(values[port].permute(0, 3, 1, 2), about) for port, about in (ports[name] for name in self.names)
        )
        return [made(own) for made, own in zip(self.makers, pictures, strict=True)]


def tokens(processor: Any) -> tuple[str, tuple[str, ...]]:  # noqa: ANN401 - transformers'
    """What stands for a picture in its texts, and all that stand for pictures, videos or sounds."""
    every = (getattr(processor, f"{kind}_token", None) for kind in ("image", "video", "audio"))
    return str(processor.image_token), tuple(each for each in every if isinstance(each, str))


def shown(images: Any) -> list[tuple[Tensor, str | None]]:  # noqa: ANN401 - what a pipeline hands to its processor
    """The pictures (texts, 3, height, width) of each place in a text, and by what filter they were resized.

    Raises:
        UnsupportedError: they are no inputs.

    """
    each: list[Any] = images if isinstance(images, list) else [images]
    contents = [(one.content, one.resample) if isinstance(one, Shown) else (one, None) for one in each]
    found = [(one, how) for one, how in contents if isinstance(one, Tensor) and len(origins(one)) == 1]
    if len(found) != len(contents):
        raise UnsupportedError("a text encoder sees something else than one of the pipeline's pictures, which is not built.")
    return found


def seen(processor: Any, images: Any, text: str) -> SeenPictures:  # noqa: ANN401 - transformers'
    """What a processor of transformers makes of pictures that a pipeline hands to it with a text, which stand for its inputs.

    Raises:
        UnsupportedError: it does something else with them.

    """
    pictures = shown(images)
    each = [one for one, _ in pictures]
    names = tuple(next(iter(origins(one))) for one in each)
    makers = tuple(patches.of(processor.image_processor, (int(one.shape[2]), int(one.shape[3]))) for one in each)
    found = SeenPictures(names, makers, tuple(how for _, how in pictures), *tokens(processor))
    blanks = [Image.fromarray(np.zeros((*one.shape[2:], 3), np.uint8)) for one in each]
    wanted = processor(text=[text], images=blanks, return_tensors="np")["input_ids"][0]
    if not np.array_equal(processor.tokenizer(found.written(text), return_tensors="np")["input_ids"][0], wanted):
        raise UnsupportedError(f"{type(processor).__name__} writes pictures into a text in another way than is known.")
    return found


def names(encodings: Sequence[Any]) -> list[str]:
    """Inputs that the text encoder sees in the calls of a pipeline's encoder of prompts."""
    calls = [call for each in encodings for call in each.tokens if call.seen]
    return list(dict.fromkeys(name for call in calls for name in call.seen.names))


def refuse_start(pipeline: Any) -> None:  # noqa: ANN401 - a pipeline of diffusers
    """Raise UnsupportedError for one whose text encoder sees the picture that it starts from."""
    if "strength" in dry_run.arguments(pipeline):
        raise UnsupportedError(
            f"{type(pipeline).__name__} starts from the picture that its text encoder sees. Only pictures that are "
            "conditions are shown to a text encoder.\n  This is a gap in t2iexport."
        )


def views(survey: Any) -> dict[str, dict[str, Picture]]:  # noqa: ANN401 - a survey, which knows this
    """Of each picture that the text encoder sees in another size than it has for the networks of a step, that size by port.

    Raises:
        UnsupportedError: it does not bring the picture to a size for the text encoder, or to several.

    """
    found = dict[str, dict[str, Picture]]()
    for call in (call for each in survey.encodings for call in each.tokens if call.seen):
        for name, maker, how in zip(call.seen.names, call.seen.makers, call.seen.filters, strict=True):
            sides = survey.prepared[name].sides if name in survey.prepared else survey.size
            if maker.sides == (sides or survey.size) or (sides is None and how is None):
                continue
            prepared = Preprocessing(resize="stretch", resample=cast("Any", how or "nearest"))
            own = {f"{name}_seen": Picture(grey=False, preprocessing=prepared, sides=maker.sides)}
            if how is None or found.setdefault(name, own) != own:
                raise UnsupportedError(
                    f"{survey.name} shows its {survey.pictures[name]} to its text encoder as it comes, or in several sizes, and "
                    "draws another. It must bring it to one size for either."
                )
    return found


def read(
    processor: Any,  # noqa: ANN401 - transformers'
    texts: Sequence[str],
    options: Mapping[str, Any],
    images: Any,  # noqa: ANN401 - as a pipeline hands them on
    asked: Mapping[str, Any],
    *,
    cut: bool,
) -> tuple[Sequence[str], Any, SeenPictures | None]:
    """How a tokenizer or processor reads texts: as they are tokenized, what it gives, and the pictures that are seen in them.

    A processor of pictures cuts nothing off: behind the last picture so many ids are read as the pipeline's encoder of prompts,
    which is `asked` so, says of all other prompts. What pads texts is `cut` away.
    """
    if images is None:
        given = text_processors.tokenized(processor, texts, options)
        return texts, (own_texts.cut(given) if cut else given), None
    found = seen(processor, images, texts[0])
    written = [found.written(each) for each in texts]
    given = text_processors.tokenized(processor.tokenizer, written, options)
    most = asked.get(_MOST)
    if isinstance(most, int):
        most += int((given["input_ids"][0] == processor.image_token_id).nonzero().max()) + 1
        given = {name: value[:, :most] for name, value in given.items()}
    return written, found.beside(own_texts.cut(given) if cut else given), found


def ports(survey: Any) -> dict[str, tuple[str, Preprocessing]]:  # noqa: ANN401 - a survey
    """By picture that the text encoder sees the port that takes it there, and how what that is fed was prepared."""
    own = {name: (name, survey.prepared.get(name, PLAIN)) for name in survey.seen}
    own |= {name: view for name, each in survey.views.items() for view in each.items()}
    return {name: (port, about.preprocessing) for name, (port, about) in own.items()}


@contextmanager
def unchecked() -> Iterator[None]:
    """Within it transformers takes for granted that a text has as many places as its pictures have patches."""
    before = os.environ.get(_UNCHECKED)
    os.environ[_UNCHECKED] = "1"
    try:
        yield
    finally:
        os.environ.pop(_UNCHECKED)
        os.environ |= {} if before is None else {_UNCHECKED: before}
