"""How near a network comes to what its backend can multiply on this machine at all.

    python -m tools.measure.product_rate bundles/bk-sdm-tiny --backend openvino
    python -m tools.measure.product_rate bundles/cached --part unet --part unet_shallow

Beside a call of each network run two graphs of one operator each, on the same backend with the same options: a product of two
large matrices, and a 3 x 3 convolution as UNets have. All take turns; a rate is multiply-adds a second, in billions, the
median of the rounds, and so are the ratios. A network's multiply-adds are its source's, so one whose graph needs fewer may exceed
single products. What is left to the better of the two is what another way to run the same
multiply-adds could save.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import helper, numpy_helper

from engines import plugins
from engines.backends import Backend, Engine
from engines.bundle import Bundle
from engines.signature import Port, Signature
from exporter.bench.diffusers import source
from exporter.reference.cost import count
from exporter.report import console
from exporter.stages.plan import Plan
from tools.peers.bench_call import inputs

#: Rows and columns of both matrices; channels and side of the convolution, as a UNet of Stable Diffusion has them at 512 px.
_MATRIX, _CHANNELS, _SIDE = 2048, 320, 64
_WARM_UP = 2


@dataclass(frozen=True)
class Rated:
    """What is called again and again: its name, its multiply-adds a call, its signature and its open engine."""

    name: str
    multiply_adds: int
    signature: Signature
    engine: Engine


@dataclass(frozen=True)
class _Product:
    """A graph of one operator on `x`, with random weights."""

    name: str
    operator: str
    shape: tuple[int, ...]
    weight: tuple[int, ...]
    multiply_adds: int

    @property
    def signature(self) -> Signature:
        return Signature(inputs=(Port(name="x", shape=self.shape),), outputs=(Port(name="y", shape=self.shape),), dims={})

    def write(self, path: Path) -> Path:
        """Save the graph, and return its path."""
        weight = np.random.default_rng(0).standard_normal(self.weight, np.float32)
        node = helper.make_node(self.operator, ["x", "w"], ["y"])
        if self.operator == "Conv":
            node.attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
        ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, self.shape) for name in ("x", "y")]
        graph = helper.make_graph([node], "product", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        return path


PRODUCTS = (
    _Product("matrix product", "MatMul", (_MATRIX, _MATRIX), (_MATRIX, _MATRIX), _MATRIX**3),
    _Product(
        "convolution",
        "Conv",
        (1, _CHANNELS, _SIDE, _SIDE),
        (_CHANNELS, _CHANNELS, 3, 3),
        _SIDE**2 * _CHANNELS**2 * 9,
    ),
)


def rates(calls: list[Rated], rounds: int) -> dict[str, list[float]]:
    """Multiply-adds a second of every round, by name; all take turns."""
    found: dict[str, list[float]] = {each.name: [] for each in calls}
    given = {each.name: inputs(each.signature) for each in calls}
    for turn in range(-_WARM_UP, rounds):
        for each in calls:
            start = time.perf_counter()
            each.engine(given[each.name])
            seconds = time.perf_counter() - start
            found[each.name].extend([each.multiply_adds / seconds] if turn >= 0 else [])
    return found


def _ratio(own: list[float], other: list[float]) -> float:
    """Median of the ratios within a round."""
    return statistics.median(one / two for one, two in zip(own, other, strict=True))


@click.command(help=__doc__)
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--part", "parts", default=["unet"], show_default=True, multiple=True)
@click.option("--backend", default="openvino", show_default=True)
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(min=1))
def main(bundle: Path, parts: tuple[str, ...], backend: str, rounds: int) -> None:
    """Measure and print."""
    opened = Bundle.open(bundle)
    entries = {name: opened.manifest.parts[name] for name in parts}
    for name, entry in entries.items():
        if backend not in entry.engines:
            raise click.ClickException(f"{bundle}: {name} has no engine of {backend}; it has {', '.join(entry.engines)}.")
    # Bundles build all their networks for one backend alike.
    opener: Backend = plugins.load("backends", backend).model_validate(entries[parts[0]].engines[backend].options)
    sizes = count(Plan(source(opened)[0]).passes.expected_family, parts)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        calls = list[Rated]()
        for name, entry in entries.items():
            network = opener.open([opened.path(file) for file in entry.engines[backend].files], entry.signature)
            calls.append(Rated(name, sizes[name].multiply_adds, entry.signature, stack.enter_context(network)))
        for product in PRODUCTS:
            place = Path(folder) / product.operator
            place.mkdir()
            files = opener.build(product.write(place / "product.onnx"), product.signature, place)
            engine = stack.enter_context(opener.open(files, product.signature))
            calls.append(Rated(product.name, product.multiply_adds, product.signature, engine))
        found = rates(calls, rounds)
    rows = [
        {
            "what": each.name,
            "G multiply-adds": f"{each.multiply_adds / 1e9:.1f}",
            "ms": f"{1e3 * each.multiply_adds / statistics.median(found[each.name]):.0f}",
            "G a second": f"{statistics.median(found[each.name]) / 1e9:.0f}",
            **{f"{part}'s share": f"{_ratio(found[part], found[each.name]):.2f}" for part in parts},
        }
        for each in calls
    ]
    console.show({"backend": f"{backend} {opener.version} {opener.model_dump(mode='json')}", "rates": rows})


if __name__ == "__main__":
    main()
