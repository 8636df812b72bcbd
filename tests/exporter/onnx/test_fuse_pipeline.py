import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import plugins
from engines.errors import UnsupportedError
from engines.guidance import Guidance
from engines.samplers.table import Draw, Emit, Eval, GivenLatent, Table, TableProvenance
from engines.signature import Port, Signature
from exporter.onnx.fuse_pipeline import unroll

GUIDANCE = Guidance.of("classifier_free", 5.0)
SIGNATURE = Signature(
    inputs=(
        Port(name="tokenizer_ids", dtype="int64", shape=(1, 2, 3)),
        Port(name="noise", shape=(1, 2, 4, 2, 2)),
        Port(name="guidance_scale", shape=(1,)),
    ),
    outputs=(Port(name="image", shape=(1, 4, 4, 3)),),
    dims={},
)
TEXT = """(int64[1,2,3] tokenizer_ids) => (float[1,2,3] prompt_embeds) { prompt_embeds = Cast<to = 1>(tokenizer_ids) }"""
DENOISER = """
(float[1,4,2,2] latent, float[1] timestep, float[1,2,3] prompt_embeds, float[1] guidance_scale) => (float[1,4,2,2] model_output) {
    time = Sin(timestep)
    scaled = Mul(time, wide)
    projected = Reshape(scaled, time_shape)
    keys = MatMul(prompt_embeds, weight)
    said = ReduceMean<keepdims = 0>(keys)
    guided = Mul(said, guidance_scale)
    timed = Add(latent, projected)
    bent = Tanh(timed)
    model_output = Add(bent, guided)
}"""
DECODER = """
(float[1,4,2,2] latent) => (float[1,4,4,3] image) {
    grown = Reshape(latent, flat)
    spread = MatMul(grown, colours)
    image = Reshape(spread, image_shape)
}"""
WEIGHTS = {
    "wide": np.linspace(0, 1, 4, dtype=np.float32),
    "time_shape": np.array([1, 4, 1, 1]),
    "weight": np.linspace(-1, 1, 3 * 5, dtype=np.float32).reshape(3, 5),
    "flat": np.array([1, 16]),
    "colours": np.linspace(-1, 1, 16 * 48, dtype=np.float32).reshape(16, 48),
    "image_shape": np.array([1, 4, 4, 3]),
}


def graph(text):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]> part {text}')
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(WEIGHTS[name], name) for name in sorted(used & set(WEIGHTS)))
    return onnx.shape_inference.infer_shapes(model)


def table(*ops):
    return Table(provenance=TableProvenance(scheduler="Toy", config={}, library="none", steps=1, deviation=0), ops=ops)


MULTISTEP = table(
    Draw(), Eval(t=999, row=(1.0,)), Draw(), Eval(t=500, row=(0.5, -0.25, 2.0)), Eval(t=1.5, row=(0, 1.0, 0, -1.5)),
    Emit(row=(0.1, 0.2, 0.3, 0.4, 0.5)),
)  # fmt: skip


def fused(sampler, denoiser=DENOISER):
    return unroll(
        {"text_encoder": ir.from_proto(graph(TEXT))},
        ("unet", ir.from_proto(graph(denoiser))),
        ("vae_decoder", ir.from_proto(graph(DECODER))),
        sampler,
        SIGNATURE,
        GUIDANCE,
    )


def run(model, path, inputs):
    signature = Signature(
        inputs=tuple(port(value) for value in model.graph.input),
        outputs=tuple(port(value) for value in model.graph.output),
        dims={},
    )
    onnx.save(model, path)
    with plugins.load("backends", "onnxruntime")().open([path], signature) as engine:
        return engine({port.name: inputs[port.name] for port in signature.inputs})


def port(value):
    kind = value.type.tensor_type
    dtype = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}[kind.elem_type]
    return Port(name=value.name, dtype=dtype, shape=tuple(dim.dim_value for dim in kind.shape.dim))


def given_inputs(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "tokenizer_ids": rng.integers(0, 9, (1, 2, 3)),
        "noise": rng.standard_normal((1, 2, 4, 2, 2), np.float32),
        "guidance_scale": np.array([2.5], np.float32),
    }


def stepped(sampler, inputs, folder, denoiser=DENOISER):
    parts = {name: graph(text) for name, text in (("text", TEXT), ("denoiser", denoiser), ("decoder", DECODER))}
    known = run(parts["text"], folder / "text.onnx", inputs) | inputs

    def denoise(latent, time):
        more = {"latent": latent, "timestep": np.array([time], np.float32)}
        return run(parts["denoiser"], folder / "denoiser.onnx", known | more)["model_output"]

    draws = iter(np.moveaxis(inputs["noise"], 1, 0))
    return run(parts["decoder"], folder / "decoder.onnx", {"latent": sampler.play(denoise, lambda: next(draws))})["image"]


def test_one_call_gives_what_the_steps_give(tmp_path):
    inputs = given_inputs()
    proto = ir.to_proto(fused(MULTISTEP))
    onnx.checker.check_model(proto, full_check=True)
    got = run(proto, tmp_path / "fused.onnx", inputs)["image"]
    np.testing.assert_allclose(got, stepped(MULTISTEP, inputs, tmp_path), rtol=1e-5, atol=1e-6)


def test_an_operator_of_one_library_stays_what_it_is(tmp_path):
    own, inputs = DENOISER.replace("Tanh(timed)", "com.microsoft.QuickGelu<alpha = 1.0>(timed)"), given_inputs()
    model = fused(MULTISTEP, own)
    assert [node.domain for node in model.graph if node.op_type == "QuickGelu"] == ["com.microsoft"] * 3
    got = run(ir.to_proto(model), tmp_path / "fused.onnx", inputs)["image"]
    np.testing.assert_allclose(got, stepped(MULTISTEP, inputs, tmp_path, own), rtol=1e-5, atol=1e-6)


ROWS = st.lists(st.floats(-2, 2, width=32), min_size=0, max_size=3)


@settings(max_examples=10, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3), ROWS)
def test_any_table_can_be_fused(tmp_path_factory, rows, last):
    sampler = table(
        Draw(), *(Eval(t=100.0 * index, row=tuple(row[: index + 1])) for index, row in enumerate(rows)), Emit(row=tuple(last[:2]))
    )
    folder, inputs = tmp_path_factory.mktemp("fused"), given_inputs(len(rows))
    got = run(ir.to_proto(fused(sampler)), folder / "fused.onnx", inputs)["image"]
    np.testing.assert_allclose(got, stepped(sampler, inputs, folder), rtol=1e-4, atol=1e-5)


def test_steps_share_weights_and_what_the_text_alone_decides():
    model = fused(MULTISTEP)
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("Tanh") == 3  # the network, three times
    assert "Sin" not in kinds  # times are constants
    assert kinds.count("ReduceMean") == 1  # of the text, once
    shared = [value for value in model.graph.initializers.values() if tuple(value.shape or ()) == (3, 5)]
    assert len(shared) == 1


def test_weights_stay_where_they_lie(tmp_path):
    large = graph(DENOISER)
    ir.save(ir.from_proto(large), tmp_path / "unet.onnx", external_data="unet.onnx.data", size_threshold_bytes=0)
    unet = ir.load(tmp_path / "unet.onnx")
    parts = {"text_encoder": ir.from_proto(graph(TEXT))}
    model = unroll(parts, ("unet", unet), ("vae_decoder", ir.from_proto(graph(DECODER))), MULTISTEP, SIGNATURE, GUIDANCE)
    ir.save(model, tmp_path / "pipeline.onnx")
    saved = onnx.load(tmp_path / "pipeline.onnx", load_external_data=False)
    tensors = {tensor.name: tensor for tensor in saved.graph.initializer}
    places = [entry.value for entry in tensors["unet.weight"].external_data if entry.key == "location"]
    assert places == ["unet.onnx.data"]


def test_what_cannot_be_fused_is_said():
    with pytest.raises(UnsupportedError, match="starts from a given picture"):
        fused(table(Draw(), GivenLatent(name="image"), Emit(row=(1.0, 1.0))))
    kinds = (("a", "Tanh"), ("b", "Sin"))
    either = [f"{name} () => (float[1,4,2,2] {name}_out) {{ {name}_out = {op}(timed) }}" for name, op in kinds]
    choice = f"bent = If (always) <then_branch = {either[0]}, else_branch = {either[1]}>"
    branching = DENOISER.replace("bent = Tanh(timed)", f"always = Constant<value = bool {{1}}>() {choice}")
    with pytest.raises(UnsupportedError, match="unet has control flow"):
        fused(MULTISTEP, branching)
