"""Layers with LoRAs as inputs equal layers with LoRAs in their weights, item by item, and at rest the network itself."""

import numpy as np
import pytest
import torch

from engines import plugins
from engines.errors import RecipeError, UnsupportedError
from engines.lora.layers import LoraLayers, LoraLimits
from engines.lora.stacking import LoraTarget, scaled, stacked
from exporter.onnx import export as exporting
from exporter.parity.probe_lora import probes, scales
from exporter.part import Case
from exporter.reference.lora_outputs import fused
from tests.arithmetic import needs_bf16, needs_openvino
from tests.exporter.onnx.adapted import LIMITS, SIGNATURE, graph_pass, open_part, part

FORMS = {"time": "rows", "to_q": "rows", "to_out": "rows", "proj": "pixels", "down": "convolution", "up": "convolution"}


def case(items=3):
    random = np.random.default_rng(5)
    latent = random.standard_normal((items, 4, 8, 12), np.float32)
    return Case("a call", {"latent": latent, "timestep": np.linspace(0, 1, items, dtype=np.float32)}, {})


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Graphs by type of the weights: file, pass, contract."""
    found = {}
    for dtype in (torch.float32, torch.float16):
        made, adding = part(dtype), graph_pass(part(dtype))
        file = tmp_path_factory.mktemp("graph") / "unet.onnx"
        exporting.save(exporting.export(made, 20, processor=True, lora=adding), file)
        found[dtype] = file, adding, adding.signature(SIGNATURE)
    return found


@pytest.fixture(scope="module")
def wanted():
    whole = part()
    adding = graph_pass(whole)
    exporting.export(whole, 20, processor=True, lora=adding)
    loras = probes(adding.found, LIMITS)
    (found,) = fused(whole, whole, [case()], loras, lambda items: scales(items, len(loras)))
    return found.source["model_output"], loras


def relative(got, want):
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def test_every_layer_inside_a_block_has_inputs_of_its_form(graphs):
    _, adding, signature = graphs[torch.float32]
    taken = {layer.name.removeprefix("blocks.0."): layer.form for layer in adding.found if layer.index is not None}
    assert taken == FORMS
    out = {layer.name: layer.used for layer in adding.found if layer.index is None}
    assert out == {"conv_in": True, "conv_out": True, "blocks.0.groups": True, "unused.0": False, "words": True}
    assert len([port for port in signature.inputs if port.optional]) == 2 * len(FORMS) + 2


@pytest.mark.parametrize(
    ("backend", "options", "dtype", "limit"),
    [
        ("onnxruntime", {}, torch.float32, 1e-5),
        ("onnxruntime", {"graph_optimization": "none"}, torch.float32, 1e-5),
        ("onnxruntime", {}, torch.float16, 2e-2),
        ("openvino", {}, torch.float32, 1e-5),
        ("openvino", {"precision": "bf16"}, torch.float32, 5e-2),
    ],
    ids=str,
)
def test_as_inputs_they_are_what_they_are_in_the_weights(graphs, wanted, tmp_path, backend, options, dtype, limit):
    if backend == "openvino":
        needs_bf16() if options else needs_openvino()
    file, adding, signature = graphs[dtype]
    want, loras = wanted
    target = LoraTarget.of("other", LIMITS, LoraLayers(layers=tuple(adding.found)))
    plain, arrays, count = case(), stacked(target, loras), len(case().inputs["latent"])
    whole = part()
    with torch.no_grad():
        base = whole.module(*map(torch.from_numpy, plain.inputs.values())).numpy()
    opener = plugins.load("backends", backend)(**options)
    files = opener.build(file, signature, tmp_path)
    with opener.open(files, signature) as engine:

        def answer(strengths):
            return engine(plain.inputs | arrays | scaled(target, loras, strengths))["model_output"]

        first = engine(plain.inputs)["model_output"]
        got, at_zero = answer(scales(count, len(loras))), answer([[0.0] * count] * len(loras))
        again = engine(plain.inputs)["model_output"]
        for item in range(count):  # alone each is what it is in the batch
            one = {name: array[item : item + 1] for name, array in plain.inputs.items()}
            own = [[each[item]] for each in scales(count, len(loras))]
            alone = engine(one | arrays | scaled(target, loras, own))["model_output"]
            assert relative(alone, got[item : item + 1]) < limit
    assert relative(want, base) > 0.1
    assert relative(got, want) < limit
    assert relative(first, base) < limit
    assert relative(at_zero, first) < limit
    assert np.array_equal(first, again)


def test_every_branch_of_a_call_has_them_where_their_number_is_open(tmp_path):
    whole, file = open_part(), tmp_path / "unet.onnx"
    adding = graph_pass(whole, repeats="factors")
    exporting.save(exporting.export(whole, 20, processor=True, lora=adding), file)
    loras = probes(adding.found, LIMITS)
    target, signature = LoraTarget.of("other", LIMITS, LoraLayers(layers=tuple(adding.found))), adding.signature(whole.signature)
    arrays = stacked(target, loras)
    opener = plugins.load("backends", "onnxruntime")()
    with opener.open(opener.build(file, signature, tmp_path), signature) as engine:
        for count in (1, 2, 3):
            given = case().inputs | {"factors": np.linspace(0.5, 2, 3 * count, dtype=np.float32).reshape(3, count)}
            strengths = scales(3, len(loras))
            (want,) = fused(whole, whole, [Case("a call", given, {})], loras, lambda items: scales(items, len(loras)))
            got = engine(given | arrays | scaled(target, loras, strengths))["model_output"]
            assert relative(got, want.source["model_output"]) < 1e-5


def test_an_engine_of_tensorrt_rtx_builds(graphs, tmp_path):
    file, _, signature = graphs[torch.float16]
    backend = plugins.load("backends", "tensorrt_rtx")(compute_capabilities=("8.9",))
    try:
        _ = backend.version
    except plugins.MissingDependency:
        pytest.skip("TensorRT-RTX is not installed")
    (engine, *_) = backend.build(file, signature, tmp_path)
    assert engine.stat().st_size > 1000


def test_patterns_choose_layers_and_one_that_means_none_is_refused():
    adding = graph_pass(part(), patterns=("*.to_*", "conv_in"))
    exporting.export(part(), 20, lora=adding)
    assert {layer.name for layer in adding.found if layer.index is not None} == {"blocks.0.to_q", "blocks.0.to_out", "conv_in"}
    with pytest.raises(RecipeError, match=r"components.other.lora.layers: '\*.to_z' is no layer"):
        exporting.export(part(), 20, lora=graph_pass(part(), patterns=("*.to_z",)))
    with pytest.raises(UnsupportedError, match="no layer that could take a LoRA"):
        exporting.export(part(), 20, lora=graph_pass(part(), patterns=("blocks.0.groups",)))


def test_without_a_rank_of_convolutions_only_products_have_inputs():
    adding = graph_pass(part(), LoraLimits(slots=1, max_rank=8, conv_rank=0))
    exporting.export(part(), 20, lora=adding)
    assert {layer.form for layer in adding.found if layer.index is not None} == {"rows", "pixels"}


def test_a_doubling_is_still_joined_with_its_convolution(graphs):
    import onnx_ir as ir

    model = ir.load(graphs[torch.float32][0])
    assert any(node.op_type == "DepthToSpace" for node in model.graph)
    assert sum(node.op_type == "Resize" for node in model.graph) == 1  # the LoRA's own
