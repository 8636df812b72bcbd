import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from engines.signature import Port, Range, Signature
from exporter.graph.group_norm import group_norm
from exporter.onnx.export import export
from exporter.part import Part


class GroupNorm(OpRun):
    """The operator as com.microsoft's documentation defines it."""

    op_domain = "com.microsoft"

    def _run(self, x, gamma, beta, activation=None, channels_last=None, epsilon=None, groups=None):
        assert channels_last == 1
        assert gamma.dtype == beta.dtype == np.float32
        grouped = x.reshape(len(x), -1, groups, x.shape[-1] // groups).astype(np.float32)
        mean, variance = (getattr(grouped, name)(axis=(1, 3), keepdims=True) for name in ("mean", "var"))
        found = ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * gamma + beta
        return ((found / (1 + np.exp(-found)) if activation else found).astype(x.dtype),)


class Network(torch.nn.Module):
    """Two norms with SiLU, whose first result is needed elsewhere in one of them, one without, one that the kernel refuses."""

    def __init__(self):
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.GroupNorm(groups, 8, eps=1e-3) for groups in (4, 2, 1, 8))
        for norm in self.norms:
            torch.nn.init.normal_(norm.weight)
            torch.nn.init.normal_(norm.bias)

    def forward(self, x):
        first = torch.nn.functional.silu(self.norms[0](x))
        plain = self.norms[1](first)
        kept = self.norms[2](plain)
        return self.norms[3](torch.nn.functional.silu(kept) + 0.1 * kept)


@pytest.mark.parametrize("most", [4, 8], ids=["static", "dynamic"])
def test_group_norms_become_one_operator_that_computes_the_same(most, tmp_path):
    torch.manual_seed(0)
    side = Range(min=4, typical=4, max=most)
    signature = Signature(
        inputs=(Port(name="x", shape=(2, 8, "side", 4)),), outputs=(Port(name="y", shape=(2, 8, "side", 4)),), dims={"side": side}
    )
    made = Part("part", "denoiser", Network().eval(), signature)
    model = group_norm(export(made, 20).model)
    norms = [node for node in model.graph if node.op_type == "GroupNorm"]
    assert [(node.attributes["groups"].as_int(), node.attributes["activation"].as_int()) for node in norms] == [
        (4, 1),
        (2, 0),
        (1, 0),
    ]
    (odd,) = (node for node in model.graph if node.op_type == "InstanceNormalization")
    assert odd.inputs[1].shape == (8,), "a group of one channel is none for a thread that takes two"
    ir.save(model, tmp_path / "part.onnx")
    x = np.random.default_rng(0).standard_normal((2, 8, most, 4), np.float32) * 3 + 1
    (got,) = ReferenceEvaluator(str(tmp_path / "part.onnx"), new_ops=[GroupNorm]).run(None, {"x": x})
    np.testing.assert_allclose(got, made.module(torch.from_numpy(x)).detach().numpy(), atol=2e-5)


def test_the_norm_of_a_sequence_stays():
    signature = Signature(inputs=(Port(name="x", shape=(2, 8, 6)),), outputs=(Port(name="y", shape=(2, 8, 6)),), dims={})
    model = group_norm(export(Part("part", "denoiser", torch.nn.GroupNorm(4, 8).eval(), signature), 20).model)
    assert [node.op_type for node in model.graph].count("InstanceNormalization") == 1
