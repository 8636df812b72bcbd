"""Planted faults are found by name, whether the graph has them or an engine."""

import copy
import functools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engines import plugins
from engines.backends import has_driver
from engines.errors import ParityError, UnsupportedError
from exporter import cli
from exporter.parity.debug import debug
from exporter.reference.part_outputs import measure
from exporter.reference.step_values import StepValues
from exporter.report import fault as printed
from tests.exporter.parity import planted


def no_source(_precision):
    raise AssertionError("an engine is held to its graph, without torch")


@pytest.fixture
def faulty(monkeypatch):
    """Make `faulty` a backend that plants a fault."""
    load = plugins.load

    def plant(fault, **how):
        backend = planted.Faulty(fault, **how)
        monkeypatch.setattr(plugins, "load", lambda kind, name: backend if name == "faulty" else load(kind, name))

    return plant


@pytest.mark.parametrize("name", planted.FAULTS)
def test_a_fault_of_the_graph_is_found_in_its_layer(tmp_path, name):
    module, plant = planted.FAULTS[name]
    model = planted.graph()
    plant(model, module)
    planted.bundle(tmp_path / "bundle", model)
    found = debug(tmp_path / "bundle", "unet", None, planted.steps, tmp_path / "out").fault
    assert found.line.stage == "passes → onnx"
    assert found.module == module
    assert found.alone < found.floor
    assert all(module in str(node.metadata_props.get(planted.SCOPES, module)) for node in found.nodes)


#: As slow as all the others: an engine is built for every look.
FEW = {"a scaled weight", "a wrong epsilon of a group norm", "an overflow of fp16"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in planted.FAULTS])
def test_a_fault_of_an_engine_is_found_in_its_layer(tmp_path, faulty, name):
    module, plant = planted.FAULTS[name]
    faulty(functools.partial(plant, module=module))
    planted.bundle(tmp_path / "bundle", planted.graph(), backend="faulty")
    found = debug(tmp_path / "bundle", "unet", "faulty", no_source, tmp_path / "out").fault
    assert found.line.stage == "onnx → engine"
    assert found.module == module
    assert len(found.nodes) == 1
    assert found.alone < found.floor


def _softer(model, module="down"):
    planted.weight("Conv", lambda array: array * 1.01)(model, module)


def test_what_is_written_repeats_the_fault_and_is_printed(tmp_path):
    model = planted.graph()
    _softer(model)
    planted.bundle(tmp_path / "bundle", model)
    report = debug(tmp_path / "bundle", "unet", None, planted.steps, tmp_path / "out")
    text = printed.text(report)
    assert "module of the source:      down\n" in text
    assert "smallest graph showing it: 1 node, Conv " in text
    assert text.count("FAIL") >= 2
    command = text.splitlines()[-1].split()
    assert command[:2] == ["polygraphy", "run"]
    onnx.checker.check_model(command[2], full_check=True)
    tool = [sys.executable, "-c", "import sys; from polygraphy.tools import main; sys.exit(main())", *command[1:]]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "FAILED | " in done.stdout + done.stderr
    assert subprocess.run([*tool[:-1], "10"], capture_output=True, check=False).returncode == 0


def test_a_bundle_within_its_limits_has_no_layer_to_blame(tmp_path):
    planted.bundle(tmp_path / "bundle", planted.graph())
    report = debug(tmp_path / "bundle", "unet", "onnxruntime", no_source, tmp_path / "out")
    assert report.fault is None
    assert "there is no layer to blame" in printed.text(report)
    assert not (tmp_path / "out").exists()


def test_a_fault_that_looking_hides_is_said_to_be_of_what_is_fused(tmp_path, faulty):
    faulty(_softer, hides="add")
    planted.bundle(tmp_path / "bundle", planted.graph(), backend="faulty")
    report = debug(tmp_path / "bundle", "unet", None, no_source, tmp_path / "out")
    assert report.fault.found.hidden
    assert "where it fuses them" in printed.text(report)
    assert "Conv" in {node.op_type for node in report.fault.nodes}
    assert report.fault.alone < report.fault.floor


def test_an_engine_of_another_graph_is_told_from_a_wrong_layer(tmp_path, faulty):
    faulty(_softer, stale=True)
    planted.bundle(tmp_path / "bundle", planted.graph(), backend="faulty")
    report = debug(tmp_path / "bundle", "unet", None, no_source, tmp_path / "out")
    assert report.fault.stale
    assert "t2iexport rebuild" in printed.text(report)


def test_what_half_precision_does_in_torch_is_found_there(tmp_path):
    """The graph is float32 here, so that only the recorded outputs and the other trace have the fault."""
    part, cases = planted.part()
    wrong = copy.deepcopy(part.module)
    wrong.loud.weight.data.mul_(1.5)
    coarse = StepValues(replace(part, module=wrong))
    recorded = measure(replace(part, module=wrong), cases)
    planted.bundle(tmp_path / "bundle", planted.graph(), cases=recorded, precision="fp16")
    report = debug(
        tmp_path / "bundle", "unet", None, lambda precision: planted.steps(precision) if precision == "fp32" else coarse, tmp_path
    )
    assert report.fault.line.stage == "source → passes"
    assert report.fault.module == "loud"
    assert "may compute a half-precision layer in float32" in printed.text(report)


def refused(tmp_path, part, backend=None):
    with pytest.raises(UnsupportedError) as caught:
        debug(tmp_path / "bundle", part, backend, no_source, tmp_path / "out")
    return str(caught.value)


def test_what_cannot_be_debugged_is_refused_with_what_can(tmp_path):
    planted.bundle(tmp_path / "bundle", planted.graph())
    assert "no part 'unett'; did you mean 'unet'?" in refused(tmp_path, "unett")
    assert "no engine of 'onnxruntim'; did you mean 'onnxruntime'?" in refused(tmp_path, "unet", "onnxruntim")
    assert "no recordings of vae_decoder" in refused(tmp_path, "vae_decoder")


def test_a_backend_that_does_not_open_here_is_refused(tmp_path):
    planted.bundle(tmp_path / "bundle", planted.graph(), backend="tensorrt_rtx")
    if has_driver():
        pytest.skip("this machine has an NVIDIA driver")
    assert "NVIDIA" in refused(tmp_path, "unet")


def test_parts_of_a_fused_pipeline_are_looked_into_without_an_engine(tmp_path):
    model = planted.graph()
    _softer(model)
    planted.bundle(tmp_path / "bundle", model, fused=True)
    assert "Debug what it was made of" in refused(tmp_path, "pipeline_2")
    assert "Leave --backend out" in refused(tmp_path, "unet", "onnxruntime")
    assert debug(tmp_path / "bundle", "unet", None, planted.steps, tmp_path / "out").fault.module == "down"


def test_an_engine_of_a_quantized_part_is_held_to_its_graph_with_qdq(tmp_path, faulty):
    model = planted.graph()
    conv = planted.node(model, "down", "Conv")
    step = ir.tensor(np.float32(0.05), name="step")
    zero = ir.tensor(np.int8(0), name="zero")
    held = [ir.Value(name=each.name, const_value=each, type=ir.TensorType(each.dtype), shape=each.shape) for each in (step, zero)]
    for value in held:
        model.graph.register_initializer(value)
    quantize = ir.node("QuantizeLinear", [conv.inputs[0], *held])
    back = ir.node("DequantizeLinear", [quantize.outputs[0], *held])
    model.graph.insert_before(conv, [quantize, back])
    conv.replace_input_with(0, back.outputs[0])
    faulty(functools.partial(planted.weight("Conv", lambda array: array * 5), module="down"))
    how = {"format": "int8", "layers": 2, "quantized": 1, "calibration": "recordings/unet.npz"}
    planted.bundle(tmp_path / "bundle", model, backend="faulty", quantized=how)
    report = debug(tmp_path / "bundle", "unet", None, no_source, tmp_path / "out")
    stages = {verdict.stage: verdict.passed for verdict in report.verdicts}
    assert stages == {"source → passes": True, "passes → onnx": True, "onnx → engine": False}
    assert report.fault.module == "down"
    assert [node.op_type for node in report.fault.nodes] == ["Conv"]


def test_the_verb_prints_writes_where_it_is_run_and_ends_with_the_status_of_a_parity_error(tmp_path, faulty, monkeypatch, capfd):
    faulty(_softer)
    planted.bundle(tmp_path / "bundle", planted.graph(), backend="faulty")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(["debug", "bundle", "unet"])
    assert caught.value.code == ParityError.exit_code
    out, err = capfd.readouterr()
    assert "module of the source:      down" in out
    assert err == ""
    assert {path.name for path in (tmp_path / "debug/bundle/unet").iterdir()} == {
        "smallest.onnx",
        "inputs.json",
        "right.json",
        "wrong.json",
    }
