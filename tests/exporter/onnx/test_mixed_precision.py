"""Islands of single precision: what is too large for half stays in fp32, what reads it too, and nothing else."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from engines import plugins
from engines.signature import Port, Range, Signature
from exporter.families.unets.wrappers import Decoder
from exporter.onnx.capture import traced
from exporter.onnx.export import export, save
from exporter.onnx.mixed_precision import find, unheld
from exporter.parity.metrics import psnr
from exporter.part import Case, Part
from exporter.reference.part_outputs import measure
from tests.exporter import models

BOUND = 16376.0
SIDE = Range(min=2, typical=4, max=8)
DECODER = Signature(
    inputs=(Port(name="latent", shape=("batch", 4, "h", "w")),),
    outputs=(Port(name="image", shape=("batch", "4*h", "4*w", 3)),),
    dims={"batch": Range(min=1, typical=1, max=2), "h": SIDE, "w": SIDE},
)


def loud(factor):
    """A decoder with a convolution whose output is large, and normalized again by everything that computes with it."""
    vae = models.vae().eval()
    with torch.no_grad():
        vae.decoder.up_blocks[0].resnets[0].conv2.weight.mul_(factor)
    return vae


def cases(module, *inputs):
    with torch.no_grad():
        images = [module.eval()(torch.from_numpy(x)).numpy() for x in inputs]
    return [Case(f"call {n}", {"latent": x}, {"image": image}) for n, (x, image) in enumerate(zip(inputs, images, strict=True))]


@pytest.fixture(scope="module")
def decoder():
    """A part that overflows in fp16, with calls of its source."""
    vae, random = loud(1e5), np.random.default_rng(0)
    calls = cases(Decoder(deepcopy(vae)), *(random.standard_normal((1, 4, 4, side), dtype=np.float32) for side in (4, 6)))
    return Part("vae_decoder", "decoder", Decoder(vae.half()).eval(), DECODER, "fp16", cases=tuple(calls))


@pytest.fixture(scope="module")
def islands(decoder):
    return find(traced(decoder), decoder, decoder.cases, BOUND, 0.0)


def worst(found, case=lambda call: call.source["image"]):
    return min(psnr(call.passes["image"], case(call)) for call in found)


def test_half_precision_alone_is_black(decoder):
    assert all(not np.isfinite(call.passes["image"]).all() for call in measure(decoder, decoder.cases))


def test_they_are_where_values_are_too_large_and_no_further(islands):
    inside = {name.removeprefix("vae.decoder.") for name in islands.modules}
    assert {"up_blocks.0.resnets.0.conv2", "up_blocks.0.resnets.0", "up_blocks.0.resnets.1.norm1"} <= inside
    assert not {name for name in inside if name.startswith("mid_block") or name.endswith(("conv1", "nonlinearity", "conv_out"))}
    assert BOUND < islands.largest < 3e38
    assert 0 < islands.left <= BOUND
    assert 0 < islands.products < 0.5
    assert 0 < islands.weights < 0.5


def test_with_them_it_draws_what_the_source_draws(decoder, islands):
    assert worst(measure(replace(decoder, single=islands.steps), decoder.cases)) > 55


def test_the_graph_is_what_was_measured_and_keeps_its_weights_half(decoder, islands, tmp_path):
    mixed = replace(decoder, single=islands.steps)
    file, _ = save(export(mixed, 20), tmp_path / "vae_decoder.onnx")
    for options in ({"graph_optimization": "none"}, {}):
        with plugins.load("backends", "onnxruntime")(**options).open([file], DECODER) as engine:
            found = [replace(call, passes=engine(call.inputs)) for call in decoder.cases]
        assert worst(found) > 55
        with_islands = {call.label: call.passes["image"] for call in measure(mixed, decoder.cases)}
        assert worst(found, lambda call, wanted=with_islands: wanted[call.label]) > 55
    types = [each.data_type for each in onnx.load(file).graph.initializer if len(each.dims) == 4]
    # Of so small a network the few that islands read are folded to float32; large ones stay half behind a Cast.
    assert types.count(onnx.TensorProto.FLOAT16) > 4 * types.count(onnx.TensorProto.FLOAT)


def test_a_value_is_cast_once_at_a_shore(decoder, islands):
    plain, mixed = (
        [node for node in traced(part).graph.nodes if node.target is torch.ops.aten._to_copy.default]
        for part in (decoder, replace(decoder, single=islands.steps))
    )
    shores = [(node.args[0], node.kwargs["dtype"]) for node in mixed]
    assert len(mixed) > len(plain)
    assert len(set(shores)) == len(shores)
    assert not [node for node in mixed if node.args[0] in mixed]


def test_where_nothing_is_too_large_the_graph_is_the_same(tmp_path):
    vae = models.vae().eval()
    calls = cases(Decoder(deepcopy(vae)), np.random.default_rng(0).standard_normal((1, 4, 4, 4), dtype=np.float32))
    part = Part("vae_decoder", "decoder", Decoder(vae.half()).eval(), DECODER, "fp16")
    found = find(traced(part), part, calls, BOUND, 0.0)
    assert (found.steps, found.modules, found.products, found.weights) == ((), (), 0.0, 0.0)
    files = [save(export(each, 20), tmp_path / f"{n}.onnx") for n, each in enumerate((part, replace(part, single=found.steps)))]
    assert files[0][1].read_bytes() == files[1][1].read_bytes()
    kinds = [[node.op_type for node in onnx.load(file).graph.node] for file, _ in files]
    assert kinds[0] == kinds[1]


def test_calls_that_show_less_than_was_recorded_count_for_more(decoder):
    quiet = replace(decoder, cases=decoder.cases[:1])
    near = find(traced(quiet), quiet, quiet.cases, 1e9, 0.0)
    assert not near.steps
    assert near.left < 1e9
    assert find(traced(quiet), quiet, quiet.cases, 1e9, 2e9).steps


class Inner(nn.Module):
    """A step that gives several values, and one that writes its type out."""

    def forward(self, x):
        one, two = (x.half() * 3e4).chunk(2, dim=-1)
        large = one.to(torch.float16) * 1.5 + two
        return (large / 1e4).to(torch.float16).float() + torch.ones(1, dtype=torch.float16)


class Scores(nn.Module):
    """Attention whose scores are large, and nothing else."""

    def forward(self, x):
        x = x.half()
        return nn.functional.scaled_dot_product_attention(x * 200, x * 200, x).float()


@pytest.mark.parametrize(("module", "shape"), [(Inner(), (1, 8)), (Scores(), (1, 1, 6, 64))], ids=["several", "attention"])
def test_steps_of_every_kind(module, shape, tmp_path):
    x = np.random.default_rng(0).uniform(1.0, 2.0, shape).astype(np.float32)
    made = module(torch.from_numpy(x))
    ports = [Port(name=name, shape=tuple(value.shape)) for name, value in (("latent", x), ("image", made))]
    part = Part("part", "decoder", module, Signature(inputs=(ports[0],), outputs=(ports[1],), dims={}), "fp16")
    found = find(traced(part), part, [Case("call", {"latent": x}, {})], BOUND, 0.0)
    assert found.steps
    mixed = replace(part, single=found.steps)
    (call,) = measure(mixed, [Case("call", {"latent": x}, {})])
    assert np.isfinite(call.passes["image"]).all()
    file, *_ = save(export(mixed, 20), tmp_path / "part.onnx")
    with plugins.load("backends", "onnxruntime")().open([file], part.signature) as engine:
        assert np.allclose(engine({"latent": x})["image"], call.passes["image"], rtol=2e-3)


def test_steps_of_another_trace_are_a_bug(decoder):
    with pytest.raises(RuntimeError, match="steps that the trace does not have: elsewhere"):
        traced(replace(decoder, single=("elsewhere",)))


def test_a_weight_that_half_does_not_hold_is_named():
    vae = models.vae()
    part = Part("vae_decoder", "decoder", Decoder(vae), DECODER)
    assert unheld(part, 65504.0) == ""
    with torch.no_grad():
        vae.decoder.conv_in.weight[0, 0, 0, 0] = -1e5
    assert unheld(part, 65504.0) == "vae.decoder.conv_in.weight"
