"""A UNet that reads a picture beside the text, by the layers of an IP-Adapter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

from engines.errors import UnsupportedError
from exporter.models import weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from exporter.models.ip_adapter import IpAdapter


def adapted(unet: nn.Module, adapter: IpAdapter) -> nn.Module:
    """Give a UNet an adapter's layers, by diffusers' own code; one on the meta device gets their shapes alone.

    Raises:
        UnsupportedError: the adapter is of a UNet with other layers, or has values that are not finite.

    """
    network: Any = unet
    outlined = next(unet.parameters()).is_meta
    _refuse_other_layers(network, adapter)
    tensors = _outlined(adapter) if outlined else _read(adapter)
    state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in tensors.items():
        side, _, own = name.partition(".")
        if side in state:
            state[side][own] = value
    # By torch's own method: that of diffusers' networks tells of weights to be kept in float32, and names none.
    vars(network)["to"] = partial(torch.nn.Module.to, network)
    try:
        with torch.device("meta" if outlined else "cpu"):
            network._load_ip_adapter_weights([state], low_cpu_mem_usage=False)  # noqa: SLF001 - as diffusers' pipelines do
    finally:
        del vars(network)["to"]
    return network.eval().requires_grad_(requires_grad=False)


def _outlined(adapter: IpAdapter) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in adapter.shapes.items()}


def _read(adapter: IpAdapter) -> dict[str, Tensor]:
    found = {name: get() for name, get in weights.opened(adapter.file).items()}
    for name, value in found.items():
        if not value.isfinite().all():
            raise UnsupportedError(f"{adapter.file}: {name} holds NaN or infinity.\n  Download or copy it again.")
    return found


def _refuse_other_layers(unet: Any, adapter: IpAdapter) -> None:  # noqa: ANN401 - diffusers'
    """Raise UnsupportedError where the adapter's layers are not those of the UNet: as many, and as wide."""
    reads = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    wide = [int(unet.get_submodule(name).to_q.in_features) for name in reads]
    own = {name: shape[0] for name, shape in adapter.shapes.items() if name.endswith(".to_k_ip.weight")}
    # diffusers counts every attention, of which each second reads the text.
    wanted = {f"ip_adapter.{2 * number + 1}.to_k_ip.weight": width for number, width in enumerate(wide)}
    if own != wanted:
        differs = next((name for name in wanted if name in own and own[name] != wanted[name]), None)
        told = f"{differs} is {own[differs]} wide, and {wanted[differs]} fit" if differs else f"it has {len(own)}"
        raise UnsupportedError(
            f"{adapter.file} is an IP-Adapter of another UNet: this one reads text in {len(wide)} layers, and of the adapter's "
            f"{told}.\n  Take an adapter of this model's base."
        )


def set_scale(unet: Any, scale: Any) -> None:  # noqa: ANN401 - diffusers', and a number or what stands for one
    """Let an adapter's picture count so much in every layer."""
    for each in unet.attn_processors.values():
        if isinstance(each, IPAdapterAttnProcessor2_0):
            each.scale = [scale]
