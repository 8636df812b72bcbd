"""What a pipeline's encoder of prompts is asked and gives, while the pipeline runs by its own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from engines.errors import UnsupportedError
from exporter.families.tracing.following import dry_run, own_texts
from exporter.families.tracing.following.dry_run import Encoding, Play, TokenCall
from exporter.families.tracing.following.origins import STEP, marked
from exporter.families.tracing.following.standins import Stepped
from exporter.families.tracing.pipelines.one_text import plain
from exporter.families.tracing.texts import made_of_masks, seen_pictures, text_processors
from exporter.families.tracing.texts.readings import AskedTokens


def unencoded(pipeline: Any) -> UnsupportedError:  # noqa: ANN401 - of diffusers
    """What to raise of a pipeline that reads its prompts somewhere in its call."""
    told = "reads its prompt within its call, and a bundle's text part is a pipeline's method that encodes prompts"
    return UnsupportedError(f"{type(pipeline).__name__} {told} ({' or '.join(dry_run.ENCODERS)}).\n  This is a gap in t2iexport.")


def recorded(
    play: Play, processors: Mapping[str, Any], read: dict[str, set[str]], *, cut: bool, ends: int | None = None
) -> list[Encoding]:
    """Let a pipeline encode by its own code, and keep what it was asked and what it gave.

    Args:
        play: of the pipeline.
        processors: its tokenizers and processors by name, as transformers has them.
        read: name of a tokenizer → what the pipeline looks at of its answers, which is added here.
        cut: whether tokenizers leave out what pads a text.
        ends: the number of encodings after which the run ends; None: it goes on.

    Returns:
        One for each call of the encoder, which the run fills.

    """
    found: list[Encoding] = []

    def answering(name: str) -> Callable[[Sequence[str], Mapping[str, Any]], AskedTokens]:
        def answer(texts: Sequence[str], options: Mapping[str, Any], images: Any = None) -> AskedTokens:  # noqa: ANN401
            if not found:
                raise unencoded(play.pipeline)
            if images is not None:
                seen_pictures.refuse_start(play.pipeline)
            asked = found[-1].kwargs
            texts, given, seen = seen_pictures.read(processors[name], texts, options, images, asked, cut=cut)
            calls = found[-1].tokens
            again = any(each.tokenizer == name and each.texts == tuple(texts) for each in calls)
            ids, mask = given["input_ids"], given.get("attention_mask")
            calls.append(TokenCall(name, tuple(texts), options, ids, mask, again, seen, made_of_masks.names(given)))
            return AskedTokens(dict(given), set() if again else read.setdefault(name, set()))

        return answer

    play.place(**{name: text_processors.answering(each, answering(name)) for name, each in processors.items()})
    method: Any = getattr(type(play.pipeline), play.encoder, None)

    def encode(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the pipeline's
        before, play.phase = play.phase, "text"
        found.append(Encoding(args, kwargs))
        try:
            given = method(play.pipeline, *args, **kwargs)
        except TypeError:  # it compares the types of its prompts, and has made another list of one
            args, kwargs = tuple(map(plain, args)), {name: plain(value) for name, value in kwargs.items()}
            found[-1] = Encoding(args, kwargs)
            given = method(play.pipeline, *args, **kwargs)
        found[-1].found = given
        pytree.tree_map_only(Tensor, lambda each: marked(each, STEP), given)
        own_texts.mark(pytree.tree_leaves(given))
        play.phase = before
        if len(found) == ends:
            raise Stepped(None, None, {})
        return given

    play.encode_by(encode)
    return found
