"""Carry a cut out: a smaller network with the source's own tensors, of the same class unless blocks are skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engines.errors import UnsupportedError
from exporter.models.depth_skip import DepthSkipUNet
from exporter.pruning.blocks import Cut, config, origin

if TYPE_CHECKING:
    from torch import nn


def outline(network: Any, cut: Cut) -> nn.Module:  # noqa: ANN401 - diffusers' ModelMixin
    """The cut network on the meta device: shapes and names, no memory."""
    with torch.device("meta"):
        return _fresh(network, cut).eval().requires_grad_(requires_grad=False)


def carry_out(network: Any, cut: Cut) -> nn.Module:  # noqa: ANN401 - diffusers' ModelMixin
    """The cut network, plain and loadable by diffusers unless it is a DepthSkipUNet; its weights are the source's tensors.

    Raises:
        UnsupportedError: a weight that stays does not have the shape that its new place needs.

    """
    made, moved, tensors = outline(network, cut), origin(cut), network.state_dict()
    state, used = {}, set()
    for name, wanted in made.state_dict().items():
        found = tensors.get(source := _source(name, moved))
        if found is None or found.shape != wanted.shape:
            had = "has no such weight" if found is None else f"has {list(found.shape)} there"
            raise UnsupportedError(
                f"prune: {name} would come from {source}, where the source {had}, and must be {list(wanted.shape)}.\n"
                "  Keep that pair: only pairs of one shape can stand in for each other."
            )
        state[name] = found.clone() if source in used else found  # two weights of one network share nothing
        used.add(source)
    made.load_state_dict(state, strict=True, assign=True)
    return made.eval().requires_grad_(requires_grad=False)


def drawn_anew(network: Any, cut: Cut, seed: int) -> nn.Module:  # noqa: ANN401 - diffusers' ModelMixin
    """The cut network as diffusers makes it before any training: every layer draws its own start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = _fresh(network, cut)
    return made.eval().requires_grad_(requires_grad=False)


def _fresh(network: Any, cut: Cut) -> nn.Module:  # noqa: ANN401 - diffusers' ModelMixin
    """The cut network as diffusers makes it of its config."""
    kind = type(network) if cut.depth is None else DepthSkipUNet
    return kind.from_config(config(network.config, cut))


def _source(name: str, moved: dict[str, str]) -> str:
    prefix = max((prefix for prefix in moved if name.startswith(prefix)), key=len, default="")
    return moved.get(prefix, "") + name.removeprefix(prefix)
