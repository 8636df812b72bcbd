import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional as F

from engines.signature import Port, Range, Signature
from exporter.graph.attend import attend
from exporter.onnx.export import export
from exporter.part import Part


class Attention(torch.nn.Module):
    """Two heads of width 4 over a text of another length."""

    def __init__(self, *, masked=False, scale=None):
        super().__init__()
        self.q, self.k, self.v, self.out = (torch.nn.Linear(8, 8, bias=index > 1) for index in range(4))
        self.masked, self.scale = masked, scale

    def forward(self, x, text):
        # As diffusers writes it.
        split = [part.view(part.shape[0], -1, 2, 4).transpose(1, 2) for part in (self.q(x), self.k(text), self.v(text))]
        mask = torch.ones(x.shape[1], text.shape[1]).tril().bool() if self.masked else None
        found = F.scaled_dot_product_attention(*split, attn_mask=mask, scale=self.scale)
        return self.out(found.transpose(1, 2).reshape(x.shape[0], -1, 8))


def part(most, **options):
    dims = {"batch": Range(min=1, typical=1, max=most), "length": Range(min=6, typical=6, max=6 * most)}
    torch.manual_seed(0)
    ports = (Port(name="x", shape=("batch", "length", 8)), Port(name="text", shape=("batch", 5, 8)))
    signature = Signature(inputs=ports, outputs=(Port(name="y", shape=("batch", "length", 8)),), dims=dims)
    return Part("part", "denoiser", Attention(**options).eval(), signature)


@pytest.mark.parametrize("most", [1, 3], ids=["static", "dynamic"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_becomes_one_operator_that_computes_the_same(most, scale, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    made = part(most, scale=scale)
    model = export(made, 20, fused=("attend",)).model
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("MultiHeadAttention") == 1
    assert "Softmax" not in kinds
    (node,) = (node for node in model.graph if node.op_type == "MultiHeadAttention")
    assert node.attributes["num_heads"].as_int() == 2
    assert node.attributes["scale"].as_float() == pytest.approx(scale or 0.5, rel=1e-6)
    ir.save(model, tmp_path / "part.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "part.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    x, text = (rng.standard_normal((most, length, 8), np.float32) for length in (6 * most, 5))
    right = made.module(torch.from_numpy(x), torch.from_numpy(text)).detach().numpy()
    np.testing.assert_allclose(session.run(None, {"x": x, "text": text})[0], right, atol=1e-6)


def test_attention_with_a_mask_stays():
    model = attend(export(part(1, masked=True), 20).model)
    assert [node.op_type for node in model.graph].count("Softmax") == 1
    assert "com.microsoft" not in model.graph.opset_imports
