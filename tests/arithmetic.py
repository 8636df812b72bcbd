"""What the processor that runs the tests computes in."""

import pytest


def needs_bf16():
    """Skip a test that has OpenVINO compute in bf16, which processors without AVX-512 do not."""
    vendor = pytest.importorskip("openvino")
    if "BF16" not in vendor.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO does not compute in bf16 on this processor")
