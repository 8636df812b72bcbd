"""The check of LoRAs bites: one on a wrong layer, ignored scales and a path that ends nowhere are blamed by name."""

from types import SimpleNamespace

import onnx_ir as ir
import pytest

from engines.bundle import EngineFiles, Onnx, PartEntry
from engines.lora.layers import LoraLayers
from engines.manifest import LoraInputs
from exporter.onnx import export as exporting
from exporter.parity import compare
from exporter.parity.probe_lora import probes, scales
from exporter.recipe.limits import Limits
from exporter.reference.lora_outputs import fused
from exporter.reference.recording import save_cases
from tests.exporter.onnx.adapted import LIMITS, SIGNATURE, graph_pass, part
from tests.exporter.onnx.test_lora_inputs import case


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a bundle holds of a part that takes LoRAs."""
    made, adding, place = part(), graph_pass(part()), tmp_path_factory.mktemp("part")
    exporting.save(exporting.export(made, 20, processor=True, lora=adding), place / "unet.onnx")
    (place / "layers.json").write_text(LoraLayers(layers=tuple(adding.found)).model_dump_json())
    loras = probes(adding.found, LIMITS)
    (place / "recordings").mkdir()
    cases = fused(made, made, [case(1), case(3)], loras, lambda items: scales(items, len(loras)))
    save_cases(cases, place / "recordings" / "other-lora.npz")
    return place


def verdicts(folder, change=lambda _: None):
    """The lines of the part, whose graph was changed."""
    model = ir.load(folder / "unet.onnx")
    ir.external_data.load_to_model(model)
    change({str(node.name): node for node in model.graph})
    ir.save(model, folder / "changed.onnx")
    adding = graph_pass(part())
    adding.found[:] = LoraLayers.load(folder / "layers.json").layers
    entry = PartEntry(
        role="denoiser",
        signature=adding.signature(SIGNATURE),
        precision="fp32",
        parameters=1,
        lora=LoraInputs(limits=LIMITS, layers="layers.json"),
        onnx={"20": Onnx(files=("changed.onnx",), nodes_exported=1, nodes=1)},
        engines={"onnxruntime": EngineFiles(options={}, opset=20, files=("changed.onnx",), version="1")},
    )
    bundle = SimpleNamespace(path=lambda name: folder / name)
    return list(compare._adapted(bundle, "other", entry, "onnxruntime", Limits({})))


def test_a_sound_part_is_held_to_fused_weights_on_its_graph_and_its_engine(folder):
    found = verdicts(folder)
    assert [(verdict.part, verdict.stage, verdict.backend) for verdict in found] == [
        ("other", "fused → lora", whose) for whose in (None, None, "onnxruntime", "onnxruntime")
    ]
    assert all(verdict.passed and verdict.values["psnr"] > 100 for verdict in found)


def swapped(nodes):
    one, two = (nodes[f"blocks.0.{name}/lora/down"] for name in ("to_q", "to_out"))
    first, second = one.inputs[1], two.inputs[1]
    one.replace_input_with(1, second)
    two.replace_input_with(1, first)


def unscaled(nodes):
    for name, node in nodes.items():
        if name.endswith("/lora/scale"):
            node.outputs[0].replace_all_uses_with(node.inputs[0])


def cut(nodes):
    for name, node in nodes.items():
        if name.endswith("/lora/add"):
            node.outputs[0].replace_all_uses_with(node.inputs[0])


@pytest.mark.parametrize(
    ("change", "told"), [(swapped, "on a wrong layer"), (unscaled, "their scales are ignored"), (cut, "LoRAs change nothing")]
)
def test_a_planted_fault_is_blamed_by_name(folder, change, told):
    failed = [verdict for verdict in verdicts(folder, change) if not verdict.passed]
    assert {verdict.backend for verdict in failed} == {None, "onnxruntime"}
    assert all(told in verdict.note for verdict in failed)
