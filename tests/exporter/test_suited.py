import pytest

from exporter.plan import Plan
from exporter.recipe import Recipe
from exporter.suited import fused

CUDA = "{onnxruntime: {providers: [CUDAExecutionProvider, CPUExecutionProvider]}}"
TEXT = """
model: {source: koala-700m, weights: random}
sampler: {scheduler: EulerDiscreteScheduler, steps: [25]}
shapes: {height: [512, 512, 512], width: [512, 512, 512], batch: [1, 1, 1]}
pipeline: %s
targets: [%s]
"""


@pytest.mark.parametrize(
    ("pipeline", "targets", "passes"),
    [
        ("stepped", CUDA, ("attend",)),
        ("stepped", f"{CUDA}, tensorrt_rtx", ()),
        ("stepped", "onnxruntime, openvino", ()),
        ("fused", CUDA, ()),
    ],
)
def test_an_operator_of_one_library_stands_only_in_graphs_of_its_own(pipeline, targets, passes):
    plan = Plan(Recipe.parse(TEXT % (pipeline, targets), "x"))
    assert fused(plan, "unet", 20) == passes
