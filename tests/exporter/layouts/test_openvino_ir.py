"""OpenVINO's files of graphs and tokenizers, and what OpenVINO GenAI does not take."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from transformers import CLIPTokenizer

from engines.backends import vendor
from engines.errors import UnsupportedError
from exporter.layouts import openvino_ir
from tests.exporter import models


def pipeline(scheduler="EulerDiscreteScheduler", vae="AutoencoderKL"):
    return SimpleNamespace(scheduler=type(scheduler, (), {})(), vae=type(vae, (), {})())


def test_what_openvino_genai_lacks_is_refused_by_name():
    openvino_ir.refuse(pipeline())
    with pytest.raises(UnsupportedError, match=r"no UniPCMultistepScheduler; it has LCMScheduler.*--to optimum"):
        openvino_ir.refuse(pipeline(scheduler="UniPCMultistepScheduler"))
    with pytest.raises(UnsupportedError, match=r"AutoencoderKL only, and this VAE is AutoencoderTiny.*--to optimum"):
        openvino_ir.refuse(pipeline(vae="AutoencoderTiny"))


def test_a_graph_becomes_openvinos_with_its_names(tmp_path):
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "hidden_states.0")]
    node = helper.make_node("Exp", ["x"], ["hidden_states.0"])
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "model.onnx")
    openvino_ir.convert(tmp_path / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["openvino_model.bin", "openvino_model.xml"]
    compiled = vendor("openvino", "openvino", "openvino").Core().compile_model(tmp_path / "openvino_model.xml", "CPU")
    (made,) = compiled({"x": np.zeros((2, 3), np.float32)}).values()
    np.testing.assert_array_equal(made, np.ones((2, 3)))
    assert compiled.output(0).any_name == "hidden_states.0"


def test_a_tokenizer_becomes_a_graph_that_gives_its_ids(tmp_path):
    vendor("openvino_tokenizers", "openvino-tokenizers", "convert")  # which registers its operators
    models.vocabulary(tmp_path / "tokenizer", "<|endoftext|>")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    openvino_ir.write_tokenizer(tokenizer, tmp_path / "tokenizer")
    core = vendor("openvino", "openvino", "openvino").Core()
    core.add_extension(vendor("openvino_tokenizers", "openvino-tokenizers", "convert")._ext_path)
    graph = core.compile_model(tmp_path / "tokenizer/openvino_tokenizer.xml", "CPU")
    made = graph(["a red circle on the square"])["input_ids"]
    wanted = tokenizer("a red circle on the square", padding="max_length", max_length=77).input_ids
    np.testing.assert_array_equal(made[0][: len(wanted)], wanted[: made.shape[1]])
