"""What a pipeline has encoded in the place of an empty text, of which its tokenizer makes no ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from engines.errors import UnsupportedError
from exporter.families.tracing.following.dry_run import Encoding


def stand_in(pipeline: Any, base: Sequence[Encoding], encode: Callable[[str, str], Sequence[Encoding]]) -> int | None:  # noqa: ANN401 - of diffusers
    """The one id that it encodes in the place of empty texts; None where it tokenizes these as any other.

    Args:
        pipeline: of diffusers, its networks on the meta device.
        base: the calls of its encoder of prompts for texts.
        encode: has it encode a prompt and a negative one.

    """
    seen: list[int] = []

    def note(_module: object, args: Any, kwargs: Any) -> None:  # noqa: ANN401 - of any network
        given = (each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor) and not each.is_meta)
        seen.extend(int(each) for each in given if each.shape == (1, 1) and not each.is_floating_point())

    with ExitStack() as hooks:
        for network in pipeline.components.values():
            if isinstance(network, nn.Module):
                hooks.callback(network.register_forward_pre_hook(note, with_kwargs=True).remove)
        try:
            found = encode("", "")
        except UnsupportedError:  # there is nothing to encode
            return None
    fewer = any(len(one.tokens) < len(other.tokens) for one, other in zip(found, base, strict=True))
    return seen[0] if fewer and seen and all(each == seen[0] for each in seen) else None
