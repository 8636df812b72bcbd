"""A UNet whose innermost blocks are gone, and do not run: zeros stand in the place of what they gave (arXiv 2401.17547)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import UNet2DConditionModel
from torch import nn


class DepthSkipUNet(UNet2DConditionModel):
    """diffusers' UNet2DConditionModel with its first `depth` input blocks, and the output blocks that take their skips.

    Blocks are counted as *Diffusion Model Compression for Image-to-Image Translation* does: `conv_in`, then every resnet with its
    attention, and every downsampler. The first output block that is left takes its skip as ever, and zeros for what came from
    within, in every channel that it had, so that no weight changes its shape. What a ControlNet adds to blocks that are gone, the
    mid block among them, is discarded.

    Its config is the whole network's, and `depth`.
    """

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - diffusers'
        """Build the whole network, and leave of it what runs.

        Raises:
            ValueError: the config's `depth` is none that this network has.

        """
        depth = config.get("depth")
        found = super().from_config({name: config[name] for name in config if name != "depth"}, *arguments, **options)
        made = found[0] if isinstance(found, tuple) else found  # which it is where the unused arguments are asked for
        made.register_to_config(depth=depth)
        _leave(made, depth)
        return found

    def forward(self, *args: Any, **given: Any) -> Any:  # noqa: ANN401 - as diffusers' own
        """Predict as diffusers' own does; the residual of the mid block, which is gone, is discarded."""
        if given.get("mid_block_additional_residual") is not None:
            given["mid_block_additional_residual"] = 0.0  # of another resolution than what it would be added to
        return super().forward(*args, **given)


def _leave(unet: Any, depth: object) -> None:  # noqa: ANN401 - diffusers' UNet2DConditionModel
    """Take away what lies within the first `depth` input blocks."""
    total = 1 + sum(len(block.resnets) + bool(block.downsamplers) for block in unet.down_blocks)
    if type(depth) is not int or not 0 < depth <= total:
        raise ValueError(f"depth must be a whole number from 1 to {total}, the input blocks of this network, not {depth!r}")
    unet.mid_block, left = None, depth - 1
    down = list[nn.Module]()
    for block in unet.down_blocks:
        if not left:
            break
        left -= _keep(block, slice(left))
        if block.downsamplers and left:
            left -= 1
        else:
            block.downsamplers = None
        down.append(block)
    up, left = list[nn.Module](), depth
    for block in reversed(unet.up_blocks):
        if not left:
            break
        left -= _keep(block, slice(-left, None))
        up.insert(0, block)
    unet.down_blocks, unet.up_blocks = nn.ModuleList(down), nn.ModuleList(up)
    unet.num_upsamplers = sum(bool(block.upsamplers) for block in up)
    up[0].register_forward_pre_hook(_from_zeros, with_kwargs=True)


def _keep(block: Any, which: slice) -> int:  # noqa: ANN401 - a block of diffusers
    """Leave of a block some of its resnets, with their attentions, and count them."""
    block.resnets = block.resnets[which]
    if getattr(block, "attentions", None) is not None:
        block.attentions = block.attentions[which]
    return len(block.resnets)


def _from_zeros(block: Any, args: tuple[object, ...], given: dict[str, Any]) -> tuple[tuple[object, ...], dict[str, Any]]:  # noqa: ANN401
    """Put zeros in the place of an up block's input, of its skip's size."""
    skip, first = given["res_hidden_states_tuple"][-1], block.resnets[0]
    zeros = skip.new_zeros((skip.shape[0], first.in_channels - skip.shape[1], *skip.shape[2:]))
    return args, {**given, "hidden_states": zeros}
