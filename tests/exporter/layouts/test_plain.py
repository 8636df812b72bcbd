"""Networks under optimum's names: each graph beside the module that it came from, in sizes that it was not traced with."""

from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from exporter.families import claim
from exporter.layouts import plain
from exporter.models.resolve import resolve
from exporter.onnx.export import ExportedModel, save
from exporter.recipe.schema import Recipe
from tests.exporter import models

pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]

RECIPE = """
model: {source: %s}
sampler: {steps: [4]}
shapes: {height: [16, 32, 64], width: [16, 32, 64], batch: [1, 1, 2]}
components: {vae_encoder: {}}
targets: [onnxruntime]
"""
#: Two stages have all that three have, and make the export shorter.
STAGES = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 1],
    "attention_head_dim": [1, 2],
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Per network of a tiny SDXL its part and its graph."""
    source = models.save_sdxl(tmp_path_factory.mktemp("source"), network=models.unet_xl(**STAGES))
    recipe = Recipe.parse(RECIPE % source, "plain", source)
    family = claim(resolve(recipe.model, source), recipe)
    entries = {name: SimpleNamespace(role=role, signature=family.signature(name)) for name, role in family.roles.items()}
    found = {}
    for part in plain.parts(family.reference().pipeline, entries):
        path = tmp_path_factory.mktemp(part.name) / "model.onnx"
        save(plain.graph(part, 20), path)
        found[part.name] = part, path
    return found


def ports(path):
    session = onnxruntime.InferenceSession(path)
    return [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]


def test_names_are_optimums(exported):
    layers = [f"hidden_states.{index}" for index in range(4)]
    assert {name: ports(path) for name, (_, path) in exported.items()} == {
        "text_encoder": (["input_ids"], ["last_hidden_state", "pooler_output", *layers]),
        "text_encoder_2": (["input_ids"], ["text_embeds", "last_hidden_state", *layers]),
        "unet": (["sample", "timestep", "encoder_hidden_states", "text_embeds", "time_ids"], ["out_sample"]),
        "vae_decoder": (["latent_sample"], ["sample"]),
        "vae_encoder": (["sample"], ["latent_parameters"]),
    }


def test_nothing_is_fused_and_the_time_is_a_scalar(exported):
    for name, (_, path) in exported.items():
        model = onnx.load(path, load_external_data=False)
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}, name
    unet = onnxruntime.InferenceSession(exported["unet"][1])
    assert [value.shape for value in unet.get_inputs() if value.name == "timestep"] == [[]]


def inputs_of(part, **sides):
    random, found = np.random.default_rng(0), {}
    for port in part.signature.inputs:
        shape = part.signature.shape(port, sides)
        whole = port.dtype == "int64"
        found[port.name] = random.integers(0, 400, shape) if whole else random.standard_normal(shape, np.float32)
    return {name: np.float32(501) if name == "timestep" else array for name, array in found.items()}


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 16), (2, 16, 8), (5, 8, 8)])
def test_graphs_give_what_the_modules_give(exported, batch, height, width):
    for name, (part, path) in exported.items():
        inputs = inputs_of(part, batch=batch, latent_height=height, latent_width=width)
        with torch.no_grad():
            wanted = part.module(*(torch.from_numpy(np.asarray(array)) for array in inputs.values()))
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        made = onnxruntime.InferenceSession(path).run(None, {key: np.asarray(array) for key, array in inputs.items()})
        assert len(made) == len(wanted) == len(part.signature.outputs)
        for one, other in zip(made, wanted, strict=True):
            np.testing.assert_allclose(one, other.numpy(), atol=2e-4, err_msg=name)


def test_openvino_genai_counts_in_whole_numbers(exported, tmp_path):
    part, path = exported["unet"]
    model = ir.load(path)
    plain.whole_times(model)
    save(ExportedModel(model, 0), tmp_path / "whole.onnx")
    inputs = inputs_of(part, batch=2, latent_height=8, latent_width=8)
    wanted = onnxruntime.InferenceSession(path).run(None, {key: np.asarray(array) for key, array in inputs.items()})
    session = onnxruntime.InferenceSession(tmp_path / "whole.onnx")
    assert [value.name for value in session.get_inputs()] == list(inputs)
    made = session.run(None, inputs | {"timestep": np.array([501])})
    np.testing.assert_array_equal(made[0], wanted[0])


def test_only_states_of_layers_have_a_dot():
    names = ("hidden_states_12", "last_hidden_state", "out_sample")
    assert [plain.dotted(name) for name in names] == ["hidden_states.12", "last_hidden_state", "out_sample"]
