"""Number formats of networks while a pipeline is followed: those of the recipe, whatever the pipeline would change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

#: What a VAE is called by, beside its `forward`.
_HALVES = ("encode", "decode")


@contextmanager
def kept_types(pipeline: Any) -> Iterator[None]:  # noqa: ANN401 - a pipeline of diffusers
    """Within it the pipeline's networks stay of the type that they have, as one that is of that type already does.

    A VAE is given pictures and latents of its own type: a pipeline that would have it in float32 hands it such.
    """
    networks = [each for each in pipeline.components.values() if isinstance(each, nn.Module)]
    before = [(vars(network), dict(vars(network))) for network in networks]
    for network in networks:
        halves = {name: _given(network, name) for name in _HALVES if hasattr(network, name)}
        vars(network).update({"to": _kept(network), **halves})
    try:
        yield
    finally:
        for own, kept in before:
            for name in ("to", *_HALVES):
                own.pop(name, None)
                own.update({name: kept[name]} if name in kept else {})


def _kept(network: nn.Module) -> Callable[..., nn.Module]:
    return lambda *_, **__: network


def _given(network: Any, name: str) -> Callable[..., Any]:  # noqa: ANN401 - a VAE of diffusers
    own = getattr(network, name)

    def called(given: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - its
        return own(given.to(network.dtype), *args, **kwargs)

    return called
