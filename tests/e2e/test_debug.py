"""From a built bundle whose graph was spoilt to the module of its source."""

import shutil

import onnx
import pytest

from engines.bundle import Bundle, draft, write
from exporter.build import debug
from exporter.stages.store import Store
from tests.e2e.conftest import silent


@pytest.mark.slow
@pytest.mark.timeout(1200)  # with the bundle that it spoils
def test_a_spoilt_norm_of_a_built_bundle_is_found_in_torchs_own_module(built, tmp_path):
    folder = shutil.copytree(built.path, tmp_path / "spoilt")
    manifest = Bundle.open(folder).manifest
    opset = str(manifest.parts["unet"].engines["onnxruntime"].opset)
    path, data = (folder / file for file in manifest.parts["unet"].onnx[opset].files)
    graph = onnx.load(path)
    norms = [node for node in graph.graph.node if node.op_type == "LayerNormalization"]
    (epsilon,) = [attribute for attribute in norms[-1].attribute if attribute.name == "epsilon"]
    epsilon.f = 1.0
    data.unlink()
    onnx.save(graph, path, save_as_external_data=True, location=data.name)
    (folder / "manifest.json").unlink()
    write(folder, draft(manifest))
    report = debug(folder, "unet", "onnxruntime", tmp_path / "out", Store(built.store), silent)
    assert report.fault.found.name == norms[-1].output[0]
    assert report.fault.module.endswith(".norm3")
    assert [node.op_type for node in report.fault.nodes] == ["LayerNormalization"]
