"""The pass itself; what it does is tested in tests/exporter/quantization."""

from exporter.passes import Pass
from exporter.passes.quantize import Quantize


def test_it_answers_all_that_is_asked_of_a_pass():
    asked = [name for name in vars(Pass) if not name.startswith("_")]
    assert {"kind", "purpose", "summary"} <= set(asked)
    for name in asked:
        getattr(Quantize(format="int8"), name)
