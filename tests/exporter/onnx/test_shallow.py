"""The outermost layers cut out of the whole graph: the same weights in the same file, and the same numbers as in torch."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from engines import plugins
from engines.errors import UnsupportedError
from exporter.families.sd import Sd
from exporter.families.sdxl import Sdxl
from exporter.onnx.export import ExportedModel, export, save
from exporter.onnx.shallow import shallow
from exporter.recipe.sampling import CacheOptions, GuidanceOptions, SamplerOptions
from tests.exporter import equality

pytestmark = pytest.mark.long

SIZES = {"batch": 2, "branches": 1, "latent_height": 8, "latent_width": 12}


@pytest.fixture(scope="module", params=[(Sd, "tiny_sd"), (Sdxl, "tiny_sdxl")], ids=["sd", "sdxl"])
def exported(request, tmp_path_factory):
    """Family, and the whole graph's file."""
    cls, source = request.param
    guidance = GuidanceOptions(mode="classifier_free", scale=3.0)
    options = SamplerOptions(steps=(9,), guidance=guidance, cache=CacheOptions(every=3))
    family = equality.family(cls, request.getfixturevalue(source), sampler=options)
    file = tmp_path_factory.mktemp("whole") / "unet.onnx"
    save(export(family.part("unet", "fp32"), 20), file)
    return family, file


def names(family):
    return tuple(port.name for port in family.signature("unet_shallow").inputs)


def test_it_names_the_weights_of_the_whole_and_is_small(exported):
    family, file = exported
    whole, cut = ir.load(file), shallow(file, names(family))
    assert len(cut.graph) < len(whole.graph) / 3
    for name, value in cut.graph.initializers.items():
        own, theirs = value.const_value, whole.graph.initializers[name].const_value
        if isinstance(own, ir.ExternalTensor):
            assert (own.location, own.offset, own.length) == (theirs.location, theirs.offset, theirs.length)
    ir.save(cut, file.with_name("unet_shallow.onnx"))
    assert file.with_name("unet_shallow.onnx").stat().st_size < 1.02 * file.with_name("unet.onnx.data").stat().st_size


def test_it_answers_as_torch_does_and_only_on_the_feature_it_is_given(exported):
    family, file = exported
    target = file.with_name("unet_shallow.onnx")
    ir.save(shallow(file, names(family)), target)
    part, random = family.part("unet_shallow", "fp32"), np.random.default_rng(0)
    ports = part.signature.inputs
    given = {port.name: random.standard_normal(part.signature.shape(port, SIZES)).astype(np.float32) for port in ports}
    backend = plugins.load("backends", "onnxruntime")()
    with backend.open([target, file.with_name("unet.onnx.data")], part.signature) as engine:
        for feature in (given["deep_feature"], given["deep_feature"] + 1):
            given["deep_feature"] = feature
            with torch.no_grad():
                wanted = part.module(*(torch.from_numpy(given[port.name]) for port in ports))
            equality.close(torch.from_numpy(engine(given)["model_output"]), wanted)


def test_a_graph_whose_layers_do_not_go_on_with_the_feature_is_refused(exported, tmp_path):
    family, file = exported
    model = ir.external_data.load_to_model(ir.load(file))
    _, port = model.graph.outputs
    other = ir.node("Neg", [port], name="other")  # a port that shows what nothing goes on with
    other.outputs[0].name, other.outputs[0].type, other.outputs[0].shape = "deep_feature", port.type, port.shape
    port.name = "of_nobody"
    model.graph.append(other)
    model.graph.outputs[1] = other.outputs[0]
    save(ExportedModel(model, 0), tmp_path / "unet.onnx")
    with pytest.raises(UnsupportedError, match="goes on with the deep feature"):
        shallow(tmp_path / "unet.onnx", names(family))
