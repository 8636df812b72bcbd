import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from engines.signature import Port, Signature
from exporter.part import Case, Part
from exporter.reference.part_outputs import measure


class Halved(nn.Module):
    """A network in fp16 between float32 ports, as parts have it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner.half()

    def forward(self, x):
        return self.inner(x.half()).float()


def measured(inner, x):
    ports = [Port(name=name, shape=shape) for name, shape in (("x", x.shape), ("y", inner(torch.from_numpy(x)).shape))]
    part = Part("part", "denoiser", Halved(inner), Signature(inputs=(ports[0],), outputs=(ports[1],), dims={}), precision="fp16")
    (case,) = measure(part, [Case("call", inputs={"x": x}, source={})])
    return part.module, case.passes["y"]


@pytest.mark.parametrize(
    ("inner", "shape"),
    [
        (nn.Conv2d(40, 24, 3, stride=2, padding=1), (2, 40, 9, 7)),
        (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", bias=False), (1, 8, 6, 6)),
        (nn.Linear(300, 5), (4, 300)),
        (nn.Linear(16, 5, bias=False), (4, 16)),
    ],
    ids=["convolution", "reflecting", "linear", "without bias"],
)
def test_halves_are_summed_in_single_precision_and_rounded(inner, shape):
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    module, found = measured(inner, x)
    with torch.no_grad():
        half = module(torch.from_numpy(x)).numpy()
        single = module.inner.float()(torch.from_numpy(x).half().float()).half().float().numpy()
    np.testing.assert_array_equal(found, single)
    np.testing.assert_allclose(found, half, atol=2e-3)  # the library's own halves


def test_what_is_too_large_for_a_half_is_infinite():
    inner = nn.Linear(2, 1, bias=False)
    inner.weight.data.fill_(300.0)
    _, found = measured(inner, np.full((1, 2), 300.0, np.float32))
    assert np.isinf(found).all()


class _Seen(TorchFunctionMode):
    """What functions that meet weights were told of their number formats."""

    def __init__(self):
        super().__init__()
        self.formats = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if len(args) > 1 and any(isinstance(each, nn.Parameter) for each in args):
            self.formats.append([each.dtype for each in args if isinstance(each, torch.Tensor)])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("inner", "shape"), [(nn.Linear(3, 2), (4, 3)), (nn.Conv2d(3, 2, 1), (1, 3, 2, 2))], ids=["linear", "convolution"]
)
def test_who_follows_functions_sees_the_weights_as_the_graph_has_them(inner, shape):
    """As what keeps times in float32 until they meet weights in halves: it would take widened ones for none."""
    with _Seen() as seen:
        measured(inner, np.ones(shape, np.float32))
    assert seen.formats[-1] == [torch.float16] * 3
