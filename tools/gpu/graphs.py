"""Graphs of full-size networks without their weights, and weights made up beside them, quickly.

An export touches no weight of a large network, so the network is exported over memory that was never written: a graph of two
megabytes that says where in its data file each weight belongs. The numbers are made up where they are needed, by name and seed
as `model.weights: random` does, straight into that file, and torch runs on the same file.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx_ir as ir
import torch

from engines import plugins
from engines.errors import UnsupportedError
from engines.signature import Signature
from exporter.families import claim
from exporter.families.unets.wrappers import Decoder
from exporter.models import weights
from exporter.models.resolve import resolve
from exporter.onnx.export import export
from exporter.part import Part, Precision
from exporter.recipe.schema import Recipe

#: Elements up to which a weight is real when a graph is made, because the export may compute with it; and up to which it stays
#: in the graph.
SMALL, TINY = 1 << 18, 1 << 12
#: Bytes to which weights are aligned in a data file.
ALIGNMENT = 4096
SEED = 0
OPSET = 20
#: The networks of one model: guidance inside and so two branches; one branch, and several pictures at once; the decoder.
VARIANTS = ("guided", "plain", "decoder")


@dataclass(frozen=True)
class Weight:
    """Where a weight stands in its network's data file; `turned` where the graph keeps a matrix transposed."""

    name: str
    shape: tuple[int, ...]
    offset: int
    turned: bool


def recipe(architecture: str, variant: str, size: int, batch: int, root: Path = Path()) -> Recipe:
    """The recipe whose networks are measured: one size, and for `plain` up to `batch` pictures at once."""
    guidance = "{mode: classifier_free, scale: 7.5}" if variant == "guided" else "{mode: none}"
    text = (
        f"model: {{source: {architecture}, weights: random, seed: {SEED}}}\n"
        f"sampler: {{scheduler: EulerDiscreteScheduler, steps: [25], guidance: {guidance}}}\n"
        f"shapes: {{height: [{size}, {size}, {size}], width: [{size}, {size}, {size}], "
        f"batch: [1, 1, {batch if variant == 'plain' else 1}]}}\n"
        "targets: [onnxruntime]\n"
    )
    return Recipe.parse(text, f"{architecture}-{variant}", root)


def component(variant: str) -> str:
    """The network of a variant, as diffusers names it."""
    return "vae" if variant == "decoder" else "unet"


def hollow(made: Recipe, variant: str, precision: Precision) -> Part:
    """The part over memory that was never written: small weights are real, and each large one begins with its number."""
    family: Any = claim(resolve(made.model, made.root), made)
    owner, name = component(variant), "vae_decoder" if variant == "decoder" else "unet"
    network = family.checkpoint.skeleton(owner).to(weights.DTYPES[precision]).to_empty(device="cpu")
    network.eval().requires_grad_(requires_grad=False)
    module = (
        Decoder(network) if variant == "decoder" else family.denoiser(network)
    )  # the decoder leaves the encoder's weights out
    for number, (key, value) in enumerate(network.state_dict().items()):
        if value.numel() <= SMALL:
            weights.fill(value, f"{SEED}/{owner}/{key}")
        else:
            value.view(-1).view(torch.int16)[0] = number
    return Part(name, family.roles[name], module.eval(), family.signature(name), precision)


def make(architecture: str, variant: str, folder: Path, *, size: int, batch: int, precision: Precision = "fp16") -> Path:
    """Write `<variant>.onnx`, whose weights are in a file that `fill` makes, and `<variant>.json`, which says where in it.

    Raises:
        UnsupportedError: the graph holds a large tensor that is no weight of the network.

    """
    part = hollow(recipe(architecture, variant, size, batch), variant, precision)
    network = part.network
    state = {name: value for name, value in network.state_dict().items() if value.numel() > TINY}
    numbers = {number: name for number, (name, value) in enumerate(network.state_dict().items()) if value.numel() > SMALL}
    place = next(name for name, child in part.module.named_children() if child is network)
    model = export(part, OPSET).model
    offsets, total = dict[str, int](), 0
    for name, value in state.items():
        offsets[name] = total
        total += -(-value.numel() * value.element_size() // ALIGNMENT) * ALIGNMENT
    listed = dict[str, Weight]()
    for spelled, value in model.graph.initializers.items():
        tensor = value.const_value
        name = spelled.removeprefix(f"{place}.")
        if tensor is None or tensor.size <= (TINY if name in state else SMALL):
            continue
        if name not in state:
            name = numbers.get(int(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.int16)[0]), "")
        shape, wanted = tuple(tensor.shape.numpy()), tuple(state[name].shape) if name else ()
        if shape not in {wanted, wanted[::-1]}:
            raise UnsupportedError(f"{architecture}, {variant}: {spelled}, of {tensor.size} values, is no weight of the network.")
        value.const_value = ir.ExternalTensor(
            f"{component(variant)}.data",
            offsets[name],
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(shape),
            name=spelled,
            base_dir=folder,
        )
        listed[name] = Weight(name, wanted, offsets[name], turned=spelled != f"{place}.{name}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{variant}.onnx"
    ir.save(model, path)
    facts = {
        "signature": part.signature.model_dump(mode="json"),
        "precision": precision,
        "bytes": total,
        "nodes": len(model.graph),
        "parameters": sum(value.numel() for value in network.parameters()),
        "weights": [dataclasses.asdict(weight) for weight in listed.values()],
    }
    path.with_suffix(".json").write_text(json.dumps(facts))
    return path


def rewrite(path: Path, passes: Sequence[str], stem: str) -> Path:
    """Write the graph after graph passes beside it under another name; the weights stay where they are."""
    made = path.with_name(f"{stem}.onnx")
    model = ir.load(path)
    for name in passes:
        model = plugins.load("graph", name)(model)
    ir.save(model, made)
    return made


def facts(folder: Path, variant: str) -> dict[str, Any]:
    """What `make` wrote beside a graph; its signature is one."""
    found = json.loads((folder / f"{variant}.json").read_text())
    return {**found, "signature": Signature.model_validate(found["signature"])}


def fill(folder: Path, variant: str, threads: int) -> dict[str, torch.Tensor]:
    """Make up the weights of a variant's network in its data file, unless they are there; the network's tensors, mapped.

    Weights too small for the file are not among them. A finished file is known by its mark, so that a killed run does not pass.
    """
    told = facts(folder, variant)
    owner, dtype = component(variant), weights.DTYPES[told["precision"]]
    file, mark = folder / f"{owner}.data", folder / f"{owner}.filled"
    with file.open("a+b") as opened, _locked(opened):
        fresh = not mark.is_file()
        if fresh:
            opened.truncate(told["bytes"])
        mapped = np.memmap(file, np.uint8, "r+")
        tensors = {}
        for weight in (Weight(**entry) for entry in told["weights"]):
            shape = tuple(weight.shape)
            span = slice(weight.offset, weight.offset + int(np.prod(shape)) * dtype.itemsize)
            kept = torch.from_numpy(mapped[span]).view(dtype)
            tensors[weight.name] = kept.view(shape[::-1]).t() if weight.turned else kept.view(shape)

        def one(name: str) -> None:
            tensor = tensors[name]
            made = tensor if tensor.is_contiguous() else torch.empty(tensor.shape, dtype=dtype)
            weights.fill(made, f"{SEED}/{owner}/{name}")
            if made is not tensor:
                tensor.copy_(made)

        if fresh:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, sorted(tensors, key=lambda name: -tensors[name].numel())))
            mark.touch()
    return tensors


def network(architecture: str, variant: str, folder: Path, size: int, threads: int, device: str) -> torch.nn.Module:
    """Diffusers' own network on a device, with the very numbers of the data file."""
    made = recipe(architecture, variant, size, 1)
    checkpoint = resolve(made.model, made.root)
    owner, tensors = component(variant), fill(folder, variant, threads)
    dtype = weights.DTYPES[facts(folder, variant)["precision"]]
    skeleton = checkpoint.skeleton(owner).to(dtype)
    if owner == "vae":
        for name in ("encoder", "quant_conv"):
            setattr(skeleton, name, None)
    state = {}
    for name, value in skeleton.state_dict().items():
        known = tensors.get(name)
        kept = weights.fill(torch.empty(value.shape, dtype=dtype), f"{SEED}/{owner}/{name}") if known is None else known
        state[name] = kept.to(device).contiguous()
    skeleton.load_state_dict(state, strict=True, assign=True)
    return skeleton.eval().requires_grad_(requires_grad=False)


@contextmanager
def _locked(opened: IO[bytes]) -> Iterator[None]:
    """One process at a time."""
    fcntl.flock(opened, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(opened, fcntl.LOCK_UN)
