"""What a pipeline's encoding of prompts returns, as ports: which tensors are a picture's own, which of their lengths open."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from engines.errors import UnsupportedError
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.dry_run import NEGATIVE, Encoding, Leaf
from exporter.families.tracing.following.own_texts import Ones, Zeros


def leaves(survey: Any, place: int, two: Encoding, taken: set[str]) -> list[Leaf | Any]:  # noqa: ANN401 - a survey, which knows this
    """A leaf for each tensor that a call of the encoder returns of a picture, the rest as it is.

    Args:
        survey: what is known of the pipeline.
        place: number of the call.
        two: the same call for two pictures; of a pipeline that draws one at a time, for a longer text.
        taken: names of leaves so far, which is added to.

    Raises:
        UnsupportedError: what it returns cannot be ports.

    """
    one = survey.encodings[place]
    (alone, _), (both, _) = dry_run.leaves(one.found, 1), dry_run.leaves(two.found, 2)
    if len(alone) != len(both):
        raise UnsupportedError(f"{survey.name} encodes each prompt to a list of tensors, which is not built.")
    names = dry_run.names_of(getattr(type(survey.pipeline), dry_run.encoder_of(survey.pipeline)), len(alone))
    negative = bool(one.tokens) and all(NEGATIVE.lower() in text.lower() for call in one.tokens for text in call.texts)
    found: list[Leaf | Any] = []
    for number, (name, single, double) in enumerate(zip(names, alone, both, strict=True)):
        rows = isinstance(single, list)
        first: Any = single[0][None] if isinstance(single, list) else single
        if not isinstance(first, Tensor) or (not rows and not survey.lone and double.shape[:1] == first.shape[:1]):
            found.append(single)
            continue
        if (filled := Zeros.of(single, double)) is not None and int(first.shape[0]) == 1:
            found.append(filled)
            continue
        times = 1 if rows else int(first.shape[0])
        if not rows and double.shape[0] != times * (1 if survey.lone else 2):
            raise UnsupportedError(
                f"{survey.name}: {name} is {list(double.shape)} of two pictures and {list(first.shape)} of one."
            )
        other = double[0].shape if rows else double.shape[1:]
        own = f"negative_{name}" if name in taken and negative else name
        while own in taken:
            own += "_2"
        taken.add(own)
        axes = [axis for axis, pair in enumerate(zip(first.shape[1:], other, strict=True)) if pair[0] != pair[1]]
        dims = {axis: survey.lengths.of_leaf(own, place, number, axis) for axis in axes}
        if survey.cut and list(dims) == [0] and not first.is_floating_point() and first.ndim == 2:
            found.append(Ones(dims[0], first.dtype))
            continue
        found.append(Leaf(own, tuple(first.shape[1:]), first.dtype, rows, times, dims))
    return found
