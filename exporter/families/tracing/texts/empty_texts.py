"""Empty texts that a pipeline does not have tokenized: what its text encoder reads in their place, or that they are zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from engines.errors import UnsupportedError
from engines.signature import Range
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.dry_run import NEGATIVE, POSITIVE, Encoding, TokenCall
from exporter.families.tracing.texts import text_processors
from exporter.families.tracing.texts.readings import PADDED, Reading, branch_of

#: Where a tensor keeps that it is all zeros.
_KEPT = "_zeros"
_MADE = {"zeros", "zeros_like", "new_zeros"}
#: What changes a tensor's shape or type alone.
_SHAPED = {"__getitem__", "clone", "contiguous", "detach", "expand", "repeat", "repeat_interleave", "reshape", "to", "view"}

#: (prompt, negative prompt) → the calls of a pipeline's encoder.
Encode = Callable[[str, str], list[Encoding]]


@dataclass(frozen=True)
class EmptyText:
    """What a pipeline makes of an empty text of one branch.

    Attributes:
        text: what is tokenized in its place; empty where it is the empty text.
        zeros: which of what its encoder of prompts returns is zeros then, as (number of the call, number of the tensor).

    """

    text: str = ""
    zeros: frozenset[tuple[int, int]] = frozenset()


class _Zeros(TorchFunctionMode):
    """Within it tensors that are made of zeros are known to be."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        found, name = func(*args, **(kwargs or {})), getattr(func, "__name__", "")
        if name in _MADE or (name in _SHAPED and hasattr(args[0], _KEPT)):
            setattr(found, _KEPT, True)
        return found


@contextmanager
def _asked(pipeline: Any) -> Iterator[list[Tensor]]:  # noqa: ANN401 - a pipeline of diffusers
    """Within it ids that the pipeline gives to its networks are noted, (texts, length) each."""
    found = list[Tensor]()

    def saw(_module: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        if isinstance(ids, Tensor) and ids.dtype == torch.long and ids.ndim == 2 and not ids.is_meta:
            found.append(ids)

    with ExitStack() as stack:
        for each in pipeline.components.values():
            if isinstance(each, nn.Module):
                stack.callback(each.register_forward_pre_hook(saw, with_kwargs=True).remove)
        yield found


def found(where: str, pipeline: Any, base: Sequence[Encoding], encode: Encode) -> dict[int, EmptyText]:  # noqa: ANN401
    """Branch, 1 for the prompt and 0 for the negative one → what the pipeline makes of an empty one that it does not tokenize.

    Args:
        where: name of the pipeline.
        pipeline: of diffusers, its networks on the meta device.
        base: the calls of its encoder for the survey's own texts.
        encode: what gives the same calls for others.

    Raises:
        UnsupportedError: it makes something of it that is no data.

    """
    made: dict[int, EmptyText] = {}
    for branch, texts in ((0, (POSITIVE, "")), (1, ("", NEGATIVE))):
        own = [call for call in _calls(base) if branch in map(branch_of, call.texts)]
        if not own:
            continue
        with _asked(pipeline) as asked, _Zeros():
            try:
                other = encode(*texts)
            except UnsupportedError:  # there is nothing to encode without
                continue
        # Those too that were made before: an empty text may be the same as one of the pipeline's own.
        if sum(len(each.tokens) for each in other) == sum(len(each.tokens) for each in base):
            continue
        with _asked(pipeline) as usual:
            encode(POSITIVE, NEGATIVE)
        if len(asked) == len(usual):
            numbers = [number for number, ids in enumerate(usual) if any(torch.equal(ids, call.ids) for call in own)]
            if not numbers:  # what is read is put together of several texts' ids: one less, where one is empty
                continue
            made[branch] = EmptyText(_written(where, getattr(pipeline, own[0].tokenizer), [asked[each] for each in numbers]))
        else:
            made[branch] = EmptyText(zeros=_zeros(where, base, other))
    return made


def _calls(encodings: Sequence[Encoding]) -> list[TokenCall]:
    return [call for each in encodings for call in each.tokens if not call.again]


def _written(where: str, component: Any, read: Sequence[Tensor]) -> str:  # noqa: ANN401 - transformers'
    """The text that a tokenizer makes ids of which a text encoder is given."""
    real, rows = text_processors.tokenizer(component), {tuple(map(int, ids[0])) for ids in read}
    (ids, *others), text = rows or {()}, ""
    if not others and ids and (names := real.convert_ids_to_tokens(list(ids))) and None not in names:
        text = "".join(names)
    if not text or list(real(text).input_ids) != list(ids):
        told = ", ".join(map(str, ids)) or "nothing"
        raise UnsupportedError(
            f"{where} has its text encoder read the ids {told} for an empty text, which are no text's of its tokenizer."
        )
    return text


def _zeros(where: str, base: Sequence[Encoding], other: Sequence[Encoding]) -> frozenset[tuple[int, int]]:
    """Which of what an encoder of prompts returns is zeros of an empty text, and else is not."""
    zeros = {
        (place, number)
        for place, each in enumerate(other)
        for number, value in enumerate(dry_run.leaves(each.found, 1)[0])
        if all(hasattr(one, _KEPT) for one in pytree.tree_leaves(value)) and isinstance(value, Tensor) and value.is_meta
    }
    if not zeros or len(other) != len(base):
        raise UnsupportedError(f"{where} makes something of an empty text that is neither a text's nor zeros; it is not built.")
    return frozenset(zeros)


def read(reading: Reading, empty: EmptyText | None, component: Any) -> Reading:  # noqa: ANN401 - transformers'
    """How a text is read of which is known what is made of an empty one, which may be shorter than all others."""
    if empty is None:
        return reading
    found = replace(reading, empty=empty.text)
    if found.open is None or found.open.multiple > 1:
        return found
    least = min(found.open.min, max(len(_ids(found, component)), 1))
    return replace(found, open=Range(min=least, typical=found.open.typical, max=found.open.max))


def _ids(reading: Reading, component: Any) -> list[int]:  # noqa: ANN401 - transformers'
    """What the bundle's tokenizer makes of an empty text."""
    fills = {} if reading.open else {"padding": PADDED, "max_length": reading.length}
    real = text_processors.tokenizer(component)
    return list(real(reading.shown(""), add_special_tokens=reading.special, **fills).input_ids)


def emptied(survey: Any, place: int, made: Sequence[Tensor | None], values: Mapping[str, Tensor]) -> list[Tensor]:  # noqa: ANN401
    """What a call of an encoder of prompts returned, without what is no port: zeros of texts that are empty.

    Args:
        survey: which knows what the pipeline makes of empty texts, and how it reads all.
        place: number of the call.
        made: its tensors (1, …); None: it is no port.
        values: of the ports, by name.

    Raises:
        UnsupportedError: a tokenizer makes no ids of an empty text, by which it would be known.

    """
    found = dict(enumerate(made))
    for branch, empty in survey.empties.items():
        if not (numbers := [number for at, number in empty.zeros if at == place]):
            continue
        calls = (call.tokenizer for call in survey.encodings[place].tokens if branch in map(branch_of, call.texts))
        name, reading = survey.entries[next(calls), branch]
        whether = _is_empty(values[f"{name}_ids"][:, 0], reading, getattr(survey.pipeline, reading.tokenizer))
        for number in numbers:
            if (value := found[number]) is not None:
                found[number] = torch.where(whether.reshape(-1, *[1] * (value.ndim - 1)), torch.zeros_like(value), value)
    return [value for value in found.values() if value is not None]


def _is_empty(ids: Tensor, reading: Reading, component: Any) -> Tensor:  # noqa: ANN401 - transformers'
    """Whether ids (batch, length) are those of an empty text, (batch,)."""
    if not (wanted := _ids(reading, component)):
        raise UnsupportedError(f"{reading.tokenizer} makes no ids of an empty text, which is zeros to its pipeline.")
    alike = (ids[:, : len(wanted)] == torch.tensor(wanted)[None]).all(1)
    return alike & (torch.ones_like(ids).sum(1) == len(wanted))
