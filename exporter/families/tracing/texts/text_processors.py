"""What reads texts in a pipeline: tokenizers, and processors of texts and pictures, which have a tokenizer and a chat."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer, ProcessorMixin
from transformers.utils.import_utils import DummyObject

from engines.errors import UnsupportedError
from exporter.families.tracing.following import listed_ids, standins
from exporter.families.tracing.following.listed_ids import Pieces
from exporter.families.tracing.pictures import feature_extractors
from exporter.families.tracing.texts.readings import MULTIPLE

#: Files of a processor's folder that may say how it prepares pictures, and under which key; "": all of it.
_IMAGES = (("processor_config.json", "image_processor"), ("preprocessor_config.json", ""))

#: Ids of the longest text where a pipeline has its tokenizer cut texts and that knows no length: a graph has a longest.
LONGEST = 1024
#: Lengths above this are transformers' word for none.
_ANY = int(1e20)


class _OneOrMore(ProcessorMixin):
    """Takes one text for a list of one, as every processor of transformers' does that takes pictures too."""

    def prepare_inputs_layout(
        self,
        images: Any = None,  # noqa: ANN401 - transformers'
        text: Any = None,  # noqa: ANN401
        videos: Any = None,  # noqa: ANN401
        audio: Any = None,  # noqa: ANN401
        **others: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """As that of transformers."""
        return super().prepare_inputs_layout(images, [text] if isinstance(text, str) else text, videos, audio, **others)


class TextProcessor(_OneOrMore):
    """What transformers' processors do with texts alone, without the libraries that their pictures and videos need."""

    def __init__(self, tokenizer: Any = None, chat_template: str | None = None) -> None:  # noqa: ANN401 - transformers'
        super().__init__(tokenizer, chat_template=chat_template)

    @classmethod
    def of(cls, folder: Path) -> TextProcessor:
        """That of a processor's folder."""
        stated, _ = cls.get_processor_dict(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(tokenizer, stated.get("chat_template") or tokenizer.chat_template)


class _WithoutVideos(_OneOrMore):
    """What a processor of transformers' does where it has nothing that prepares videos."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        """What it is made of."""
        return [name for name in super().get_attributes() if "video" not in name]


def pictured(name: str, image_processor: Any, tokenizer: Any, template: Any) -> Any:  # noqa: ANN401 - transformers'
    """A processor of texts and pictures by the code of transformers' class of that name, which needs no torchvision so."""
    kind = getattr(transformers, name)
    own: Any = type(name, (_WithoutVideos, kind), {"__module__": transformers.__name__})
    return own(image_processor=image_processor, tokenizer=tokenizer, chat_template=template)


def load(name: str, folder: Path) -> Any:  # noqa: ANN401 - transformers'
    """The processor of transformers' class of that name: of texts and pictures where its folder says how it prepares these.

    A class that writes nothing of a picture into a text is one of texts alone, and so is one for which transformers stands in,
    since a library of it is missing.
    """
    texts, kind = TextProcessor.of(folder), getattr(transformers, name, ProcessorMixin)
    if isinstance(kind, DummyObject) or kind.replace_image_token is ProcessorMixin.replace_image_token:
        return texts
    for file, key in _IMAGES:
        stated = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        config = stated.get(key, {}) if key else stated
        if feature_extractors.kind(str(config.get("image_processor_type"))) is not None:
            return pictured(
                name, feature_extractors.load(config["image_processor_type"], config), texts.tokenizer, texts.chat_template
            )
    return texts


def is_processor(kind: str) -> bool:
    """Whether a class of transformers' that has a tokenizer has more beside it."""
    return kind.endswith("Processor")


def of(pipeline: Any) -> dict[str, Any]:  # noqa: ANN401 - a pipeline of diffusers
    """The components of a pipeline that make ids of texts, by name."""
    return {name: each for name, each in pipeline.components.items() if hasattr(tokenizer(each), "convert_tokens_to_ids")}


def tokenizer(component: Any) -> Any:  # noqa: ANN401 - transformers'
    """The tokenizer that it is or has."""
    return component.tokenizer if isinstance(component, ProcessorMixin) and hasattr(component, "tokenizer") else component


def tokenized(component: Any, texts: Sequence[str], options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """What one that is not replaced makes of texts.

    What fills a text up to a multiple of ids behind its end is left out: it is masked, and a bundle's text is as long as it is.
    """
    left = {name: value for name, value in options.items() if not (name == MULTIPLE and _fills_up(component, options))}
    if cut_nowhere(component, options):
        left["max_length"] = LONGEST
    if any(isinstance(text, Pieces) and len(text.pieces) > 1 for text in texts):
        return _joined(component, texts, left)
    return component(text=list(texts), **{"return_tensors": "pt", **left})


def _joined(component: Any, texts: Sequence[str], options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """The same of texts of which each piece is tokenized alone."""
    cut = {name: value for name, value in options.items() if name == "add_special_tokens"}
    rows = [
        [number for piece in getattr(text, "pieces", [text]) for number in component(piece, **cut)["input_ids"]][
            : options.get("max_length") if options.get("truncation") else None
        ]
        for text in texts
    ]
    shape = {name: options[name] for name in ("padding", "max_length") if name in options}
    return component.pad({"input_ids": rows}, return_tensors="pt", return_attention_mask=True, **shape)


def cut_nowhere(component: Any, options: Mapping[str, Any]) -> bool:  # noqa: ANN401
    """Whether a tokenizer is asked to cut texts, and knows no length to which it could."""
    cuts = options.get("truncation") is True and options.get("max_length") is None
    return cuts and tokenizer(component).model_max_length > _ANY


def cut_at(pipeline: Any, encodings: Sequence[Any]) -> dict[str, int]:  # noqa: ANN401 - of diffusers
    """Tokenizers that know no length to which they cut in the calls of an encoder of prompts, and to how many ids they do."""
    real, calls = of(pipeline), [call for each in encodings for call in each.tokens]
    return {call.tokenizer: LONGEST for call in calls if cut_nowhere(real[call.tokenizer], call.options)}


def _fills_up(component: Any, options: Mapping[str, Any]) -> bool:  # noqa: ANN401
    """Whether a text is padded to a multiple and no further.

    Raises:
        UnsupportedError: it is so before its beginning, where its own ids have other places then.

    """
    if options.get("padding") not in (True, "longest"):
        return False
    if (options.get("padding_side") or tokenizer(component).padding_side) == "left":
        raise UnsupportedError(f"{type(component).__name__} fills texts up to a multiple on their left, which is not built.")
    return True


def _count(real: Any, text: str, options: Mapping[str, Any]) -> int:  # noqa: ANN401
    """How many ids a tokenizer of transformers' makes of a text."""
    return int(tokenized(real, [text], options)["input_ids"].shape[1])


def _padding(real: Any) -> Callable[..., Any]:  # noqa: ANN401
    """Its method `pad`, which may be given lists of ids that are to come."""

    def padded(_self: Any, encoded: Any, *_: Any, **options: Any) -> Any:  # noqa: ANN401
        found = listed_ids.padded(encoded, options)
        return real.pad(encoded, **options) if found is None else found

    return padded


def answering(real: Any, answer: Callable[..., Any]) -> Any:  # noqa: ANN401 - transformers'
    """One of the same class whose calls `answer` answers, given texts, options and, where there are any, pictures."""
    own = tokenizer(real)

    def read(text: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
        if listed_ids.asked_for(options):
            return listed_ids.lists(text, options, answer, partial(_count, own))
        return answer([text] if isinstance(text, str) else list(text), options)

    def called(self: Any, text: Any = None, *_: Any, **options: Any) -> Any:  # noqa: ANN401
        own.padding_side = self.padding_side  # which some pipelines set before they call
        return read(text, options)

    # What was cut off is told to whoever reads a log.
    decoded = lambda _self, ids, *_, **__: [""] * len(ids)  # noqa: E731
    reads = standins.stand_in(own, __call__=called, pad=_padding(own), batch_decode=decoded)
    if own is real:
        return reads

    def processed(_self: Any, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **options: Any) -> Any:  # noqa: ANN401
        if videos is not None or audio is not None:
            raise UnsupportedError("The text encoder of this model is given more than texts and pictures, which is not built.")
        if images is None:
            return read(text, options)
        if getattr(real, "image_processor", None) is None:
            raise UnsupportedError(
                "The text encoder of this model sees its pictures too, and nothing is there that prepares them for it.\n"
                f"  The folder of its {type(real).__name__} needs a preprocessor_config.json, as where the model comes from."
            )
        return answer([text] if isinstance(text, str) else list(text), options, images)

    return standins.stand_in(real, __call__=processed, tokenizer=reads)
