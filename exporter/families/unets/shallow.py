"""Step caching in UNets (DeepCache, arXiv 2312.00858): the outermost layers alone, on what a whole call left inside.

The layers of the last up block take the skips of the outermost ones, the innermost first: depth 0 is the last layer, which takes
the skip of `conv_in`; each further depth takes one more layer of the last up block, and one more of the first down block. What
comes into the first of these from within is the deep feature, at the latent's own resolution.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from exporter.families import Saw
    from exporter.recipe.sampling import SamplerOptions


@contextmanager
def watched(unet: Any, depth: int) -> Iterator[list[Tensor]]:  # noqa: ANN401 - diffusers' UNet2DConditionModel
    """Yields a list to which every whole call of the UNet appends its deep feature, (B, C, H, W)."""
    block = unet.up_blocks[-1]
    layers: Any = getattr(block, "attentions", None) or block.resnets
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Any) -> None:  # noqa: ANN401 - a tensor, or a tuple of one
        kept.append(output[0] if isinstance(output, tuple) else output)

    hook = layers[len(block.resnets) - 2 - depth].register_forward_hook(keep)
    try:
        yield kept
    finally:
        hook.remove()


def shallow(
    unet: Any,  # noqa: ANN401 - diffusers' UNet2DConditionModel
    depth: int,
    deep: Tensor,
    sample: Tensor,
    timestep: Tensor | float,
    encoder_hidden_states: Tensor | None = None,
    timestep_cond: Tensor | None = None,
    added_cond_kwargs: Mapping[str, Tensor] | None = None,
    **_: object,
) -> Tensor:
    """What the UNet answers with `deep` in the place of all that lies further in; the rest as for its own `forward`."""
    emb = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=timestep), timestep_cond)
    given = {"encoder_hidden_states": encoder_hidden_states, "added_cond_kwargs": added_cond_kwargs}
    more = unet.get_aug_embed(emb=emb, **given)
    emb = emb if more is None else emb + more
    emb = emb if unet.time_embed_act is None else unet.time_embed_act(emb)
    states = None if encoder_hidden_states is None else unet.process_encoder_hidden_states(**given)
    hidden = unet.conv_in(2 * sample - 1.0 if unet.config.center_input_sample else sample)
    skips = [hidden]
    for layer in range(depth):
        hidden = _layer(unet.down_blocks[0], layer, hidden, emb, states)
        skips.append(hidden)
    block, hidden = unet.up_blocks[-1], deep
    for layer in range(len(block.resnets) - 1 - depth, len(block.resnets)):
        hidden = _layer(block, layer, torch.cat([hidden, skips.pop()], dim=1), emb, states)
    if unet.conv_norm_out is not None:
        hidden = unet.conv_act(unet.conv_norm_out(hidden))
    return unet.conv_out(hidden)


def _layer(block: Any, index: int, hidden: Tensor, emb: Tensor, states: Tensor | None) -> Tensor:  # noqa: ANN401 - diffusers'
    hidden = block.resnets[index](hidden, emb)
    attentions = getattr(block, "attentions", None)
    return attentions[index](hidden, encoder_hidden_states=states, return_dict=False)[0] if attentions else hidden


@contextmanager
def compared(unet: Any, depths: Sequence[int], reach: int, saw: Saw) -> Iterator[None]:  # noqa: ANN401
    """Within it, after every whole call of the UNet its outermost layers answer the same, on what the calls before left.

    Args:
        unet: diffusers' UNet2DConditionModel.
        depths: of the shallow calls.
        reach: how many calls back what was left is tried.
        saw: told of every answer how far it is off.

    """
    whole = unet.forward
    earlier: deque[tuple[int, dict[int, Tensor]]] = deque(maxlen=reach)
    calls = count()

    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - diffusers'
        for kept in left.values():
            kept.clear()  # deeper shallow calls pass through what is watched for others
        call, answer = next(calls), whole(*args, **kwargs)
        own = {depth: kept[0] for depth, kept in left.items()}
        for origin, features in earlier:
            for depth, deep in features.items():
                saw(depth, origin, call, (shallow(unet, depth, deep, *args, **kwargs) - answer[0]).flatten(1).numpy())
        earlier.append((call, own))
        return answer

    with ExitStack() as stack:
        left = {depth: stack.enter_context(watched(unet, depth)) for depth in depths}
        unet.forward = forward
        try:
            yield
        finally:
            del unet.forward


@contextmanager
def cached(pipeline: Any, unet: Any, options: SamplerOptions) -> Iterator[list[Tensor]]:  # noqa: ANN401 - diffusers'
    """Within it, a pipeline of diffusers calls its UNet as the recipe's cache says, whole or shallow.

    Yields:
        Per call of the UNet the deep feature that it left, or was given, in diffusers' order of branches. Stays empty without
        a cache.

    """
    features: list[Tensor] = []
    if options.cache is None:
        yield features
        return
    depth, whole, plan = options.cache.depth, unet.forward, list[bool]()

    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - diffusers'
        if not plan:
            total = len(pipeline.scheduler.timesteps)
            plan.extend(options.wholes(total, total - pipeline.num_timesteps))
        if plan[len(features)]:
            answer = whole(*args, **kwargs)
            features.append(kept[-1])
            kept.clear()
            return answer
        features.append(features[-1])
        return (shallow(unet, depth, features[-1], *args, **kwargs),)

    with watched(unet, depth) as kept:
        unet.forward = forward
        try:
            yield features
        finally:
            del unet.forward
