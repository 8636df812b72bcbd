"""How much of a UNet's call are the keys and values of the text, which depend on no step: counted, and in CPU time of one thread.

    python -m tools.measure.text_keys bk-sdm-tiny --size 256

What a stepped pipeline could save at every step but the first, were they computed once a picture and fed by name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions

#: Token ids of a prompt.
_TOKENS = 77


def projections(unet: nn.Module) -> list[nn.Module]:
    """The layers that make keys and values of the text."""
    return [module for name, module in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]


@contextmanager
def timed(layers: list[nn.Module]) -> Iterator[list[float]]:
    """Within it, the CPU seconds of every call of a layer are appended."""
    began, spent = list[float](), list[float]()

    def begin(*_: object) -> None:
        began.append(time.thread_time())

    def end(*_: object) -> None:
        spent.append(time.thread_time() - began.pop())

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(begin).remove)
            stack.callback(layer.register_forward_hook(end).remove)
        yield spent


def call(unet: Any, size: int, device: str) -> dict[str, Any]:  # noqa: ANN401 - diffusers' UNet2DConditionModel
    """Arguments of a call for one branch of a picture of so many pixels a side."""
    cells, config = size // 8, unet.config
    given: dict[str, Any] = {
        "sample": torch.zeros(1, config.in_channels, cells, cells, device=device),
        "timestep": torch.ones(1, device=device),
        "encoder_hidden_states": torch.zeros(1, _TOKENS, config.cross_attention_dim, device=device),
    }
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added: dict[str, Tensor] = {"text_embeds": torch.zeros(1, width, device=device)}
        given["added_cond_kwargs"] = added | {"time_ids": torch.zeros(1, 6, device=device)}
    return given


def counted(unet: nn.Module, size: int) -> tuple[int, int]:
    """Multiply-adds of a call on the meta device, and those of the keys and values among them."""
    products: list[int] = []

    def saw(_module: nn.Module, args: tuple[Tensor], made: Tensor) -> None:
        products.append(made.numel() * args[0].shape[-1])

    with ExitStack() as stack, torch.no_grad(), FlopCounterMode(display=False) as counter:
        for layer in projections(unet):
            stack.callback(layer.register_forward_hook(saw).remove)
        unet(**call(unet, size, "meta"))
    return counter.get_total_flops() // 2, sum(products)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.argument("architecture")
@click.option("--size", default=512, show_default=True, help="Pixels a side.")
@click.option("--rounds", default=3, show_default=True)
def main(architecture: str, size: int, rounds: int) -> None:
    """Count, then time."""
    unet = resolve(ModelOptions(source=architecture, weights="random"), Path()).skeleton("unet").eval()
    whole, keys = counted(unet, size)
    click.echo(f"counted: {whole / 1e9:.1f} G multiply-adds, {keys / 1e9:.2f} G of keys and values, {keys / whole:.2%}")
    unet = unet.to_empty(device="cpu")
    for value in unet.parameters():
        nn.init.constant_(value, 0.01)
    torch.set_num_threads(1)
    shares = list[float]()
    with torch.no_grad(), timed(projections(unet)) as spent:
        for _ in range(rounds + 1):
            spent.clear()
            began = time.thread_time()
            unet(**call(unet, size, "cpu"))
            took = time.thread_time() - began
            shares.append(sum(spent) / took)
            click.echo(f"a call {took:.2f} s of CPU, keys and values {sum(spent):.4f} s, {shares[-1]:.2%}")
    click.echo(f"median of {rounds} after one to warm up: {median(shares[1:]):.2%}")


if __name__ == "__main__":
    main()
