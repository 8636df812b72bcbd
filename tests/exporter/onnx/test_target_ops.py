import pytest

from engines.bundle import EngineFiles, Onnx, PartEntry
from engines.signature import Port, Signature
from exporter.onnx.target_ops import fused, unread
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
CUDA = "{onnxruntime: {providers: [CUDAExecutionProvider, CPUExecutionProvider]}}"
LAST = CUDA.replace("}}", ", nhwc: true}}")
OWN = "{onnxruntime: {fused_attention: true}}"
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
        ("stepped", LAST, ("attend", "group_norm")),
        ("stepped", f"{CUDA}, tensorrt_rtx", ()),
        ("stepped", "onnxruntime", ()),
        ("stepped", OWN, ("attend",)),
        ("stepped", f"{OWN}, openvino", ()),
        ("fused", CUDA, ("attend",)),
        ("fused", LAST, ("attend",)),
        ("fused", OWN, ("attend",)),
        ("fused", f"{OWN}, openvino", ()),
    ],
)
def test_an_operator_of_one_library_stands_only_in_graphs_of_its_own(pipeline, targets, passes):
    plan = Plan(Recipe.parse(TEXT % (pipeline, targets), "x"))
    assert fused(plan.targets["unet"].values(), 20, plan.recipe.pipeline) == passes


@pytest.mark.parametrize(
    ("role", "precision", "engines", "why"),
    [
        ("denoiser", "bf16", {"openvino": {}}, "no bf16 kernels"),
        ("denoiser", "fp16", {"onnxruntime": {"providers": PROVIDERS, "nhwc": True}}, "group_norm made operators"),
        ("pipeline", "fp16", {"onnxruntime": {"providers": PROVIDERS, "nhwc": True}}, ""),
        ("text", "fp16", {"onnxruntime": {"providers": PROVIDERS, "nhwc": True}}, ""),
        ("denoiser", "fp16", {"onnxruntime": {"providers": PROVIDERS}}, ""),
        ("denoiser", "fp16", {"onnxruntime": {"providers": PROVIDERS, "nhwc": True}, "tensorrt_rtx": {}}, ""),
    ],
)
def test_a_graph_that_no_processor_can_run_is_not_compared_there(role, precision, engines, why):
    entry = PartEntry(
        role=role,
        signature=Signature(inputs=(Port(name="x", shape=(1,)),), outputs=(Port(name="y", shape=(1,)),), dims={}),
        precision=precision,
        parameters=1,
        onnx={"20": Onnx(files=("a.onnx",), nodes_exported=1, nodes=1)},
        engines={name: EngineFiles(options=own, opset=20, files=("a.onnx",), version="1") for name, own in engines.items()},
    )
    found = unread(entry, 20)
    assert why in found
    assert bool(why) == bool(found)
