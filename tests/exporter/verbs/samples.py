"""A recipe as text, and two verdicts, of which verbs are asked to say something."""

from engines.bundle import Verdict

RECIPE = """\
model: {source: SOURCE}
sampler: {steps: [2]}
shapes: {height: [32, 32, 64], width: [32, 32, 64]}
targets: [tensorrt_rtx]
"""
FIGURES = {"values": {"relative_l2": 1e-3, "psnr": 60.0}, "limit": {"psnr": 45.0}}
GOOD = Verdict(part="unet", stage="onnx → engine", case="t 999", backend="b", passed=True, **FIGURES)
BAD = GOOD.model_copy(update={"values": {"psnr": 12.5}, "passed": False, "note": "half"})
