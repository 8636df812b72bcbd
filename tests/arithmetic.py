"""What the processor that runs the tests computes in."""

import os

import pytest

#: Switches of oneDNN, by which a test run imitates an older processor.
SWITCHES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def needs_openvino(**where):
    """Skip a test, or of `allow_module_level` a file, that runs networks on OpenVINO, where that is not here or cannot run."""
    vendor = pytest.importorskip("openvino")
    if any(name in os.environ for name in SWITCHES):
        why = "OpenVINO chooses its layers by the processor and its oneDNN by a switch: where they disagree it cannot run"
        pytest.skip(why, **where)
    return vendor


def needs_bf16():
    """Skip a test that has OpenVINO compute in bf16, which processors without AVX-512 do not."""
    if "BF16" not in needs_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO does not compute in bf16 on this processor")
