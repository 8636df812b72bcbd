"""A network with a layer of every kind, its bundle, and faults to plant in single layers of its graph."""

import ast
import functools
import math

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch.nn import functional as F

from engines import plugins
from engines.bundle import EngineFiles, Onnx, PartEntry, draft, write
from exporter.onnx.export import export, save
from exporter.part import Case, Part
from exporter.reference.part_outputs import measure
from exporter.reference.recording import save_cases
from exporter.reference.step_values import StepValues
from tests.engines import small

SCOPES = "pkg.torch.onnx.name_scopes"


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(8, 8) for _ in range(4))
        self.softmax = nn.Softmax(-1)

    def forward(self, x):
        scores = self.to_q(x) @ self.to_k(x).transpose(-1, -2) / math.sqrt(8)
        return self.to_out(self.softmax(scores) @ self.to_v(x))


class Network(nn.Module):
    """Latents (B, 4, h, w), in and out."""

    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8, eps=1e-3)
        self.silu = nn.SiLU()
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.time = nn.Linear(1, 8)
        self.layer_norm = nn.LayerNorm(8, eps=1e-3)
        self.attention = Attention()
        self.ff = nn.Linear(8, 8)
        self.loud = nn.Conv2d(8, 8, 1, bias=False)
        self.tanh = nn.Tanh()
        self.up = nn.Conv2d(8, 8, 3, padding=1)
        self.conv_out = nn.Conv2d(8, 4, 3, padding=1)
        with torch.no_grad():
            self.loud.weight.mul_(3e6)

    def forward(self, latent, timestep, prompt_embeds):
        x = self.conv_in(latent)
        skip = x = x + self.silu(self.norm(x))
        x = self.down(x)
        x = x + self.time(timestep[:, None] / 1000)[:, :, None, None] + prompt_embeds.mean()
        batch, channels, height, width = x.shape
        tokens = x.reshape(batch, channels, height * width).transpose(1, 2)
        tokens = tokens + self.attention(self.layer_norm(tokens))
        tokens = tokens + F.gelu(self.ff(tokens))
        x = tokens.transpose(1, 2).reshape(batch, channels, height, width)
        x = self.tanh(self.loud(x) * 1e-6) + x
        return self.conv_out(self.up(F.interpolate(x, scale_factor=2.0, mode="nearest")) + skip)


@functools.cache
def part():
    torch.manual_seed(0)
    signature = small.draft("none").parts["unet"].signature
    made = Part("unet", "denoiser", Network().eval(), signature)
    random = np.random.default_rng(0)

    def case(label, batch, side):
        inputs = {
            "latent": random.standard_normal((batch, 4, side, side)).astype(np.float32),
            "timestep": np.full(batch, 500.0, np.float32),
            "prompt_embeds": random.standard_normal((batch, 1, 1)).astype(np.float32),
        }
        with torch.no_grad():
            answer = made.module(*map(torch.from_numpy, inputs.values())).numpy()
        return Case(label, inputs, {"model_output": answer})

    return made, measure(made, [case("t 500, small", 1, 4), case("t 500, two", 2, 6)])


@functools.cache
def steps(_precision):
    return StepValues(part()[0])


@functools.cache
def proto():
    return ir.to_proto(export(part()[0], 20).model)


def graph():
    return ir.from_proto(proto())


def bundle(folder, model, *, backend="onnxruntime", cases=None, fused=False, **changes):
    """A bundle whose UNet is the network, with that graph."""
    made = small.make(folder, mode="none", **(small.fused("none") if fused else {}))
    files = [file.relative_to(folder).as_posix() for file in save(_Saved(model), folder / "onnx/20/unet.onnx")]
    (folder / "recordings").mkdir()
    save_cases(cases or part()[1], folder / "recordings/unet.npz")
    (folder / "manifest.json").unlink()
    parts = dict(made.manifest.parts)
    if backend != "onnxruntime":
        parts = {
            name: entry.model_copy(update={"engines": {backend: entry.engines["onnxruntime"]}}) for name, entry in parts.items()
        }
    engines = {} if fused else {backend: EngineFiles(options={}, opset=20, files=tuple(files), version="1")}
    entry = {"onnx": {"20": Onnx(files=tuple(files), nodes_exported=9, nodes=5)}, "engines": engines} | changes
    parts["unet"] = PartEntry.model_validate({**dict(parts["unet"]), **entry})
    return write(folder, draft(made.manifest, parts=parts, recordings=("recordings/unet.npz",)))


class _Saved:
    def __init__(self, model):
        self.model = model


class Faulty:
    """A backend that gets one layer wrong in whatever it builds."""

    opset, distribution, extra, fused = 20, "onnxruntime-gpu", "onnxruntime", ()

    def __init__(self, fault, *, hides=None, stale=False):
        self.fault, self.hides, self.stale = fault, hides, stale
        self.real = plugins.load("backends", "onnxruntime")()

    def model_validate(self, options):
        assert "threads" in options or not options
        return self

    def computes(self, precision):
        return precision

    def build(self, onnx, signature, folder):
        seen = {port.name for port in signature.outputs}
        return [self.write(onnx, folder, wrong=not self.stale and self.hides not in seen)]

    def write(self, onnx, folder, *, wrong):
        model = ir.load(onnx)
        if wrong:
            self.fault(model)
        ir.save(ir.external_data.load_to_model(model), folder / "engine.onnx")
        return folder / "engine.onnx"

    def open(self, files, signature):
        """Open what was built; the bundle's own engine is built of its graph on the way."""
        if files[0].name != "engine.onnx":
            folder = files[0].parent / "cache"
            folder.mkdir(exist_ok=True)
            files = [self.write(files[0], folder, wrong=True)]
        return self.real.open(files, signature)


def node(model, module, kind):
    """The first node of that kind of a module; None where a part of the graph is without it."""
    for each in model.graph:
        scopes = ast.literal_eval(each.metadata_props.get(SCOPES, "['', '']"))
        if each.op_type == kind and scopes[-2] == module:
            return each
    return None


def weight(kind, change, which=1):
    """Change a weight that a node reads; only for it."""

    def fault(model, module):
        if each := node(model, module, kind):
            held = each.inputs[which]
            array = change(held.const_value.numpy().copy()).astype(held.dtype.numpy())
            name = f"{held.name}_wrong"
            other = ir.Value(name=name, type=held.type, shape=held.shape, const_value=ir.tensor(array, name=name))
            model.graph.register_initializer(other)
            each.replace_input_with(which, other)
            if not held.uses():
                del model.graph.initializers[held.name]

    return fault


def attribute(kind, name, value):
    """Another attribute of a node."""

    def fault(model, module):
        if each := node(model, module, kind):
            each.attributes[name] = ir.convenience.convert_attribute(name, value)

    return fault


def operator(kind, other):
    """Another operator of the same inputs."""

    def fault(model, module):
        if each := node(model, module, kind):
            each.op_type = other

    return fault


def half(kind):
    """A node that computes in float16."""

    def fault(model, module):
        if each := node(model, module, kind):
            for index, given in enumerate(each.inputs):
                cast = ir.node("Cast", [given], attributes={"to": int(ir.DataType.FLOAT16)})
                model.graph.insert_before(each, cast)
                each.replace_input_with(index, cast.outputs[0])
            (value,) = each.outputs
            users, ends = list(value.uses()), value.is_graph_output()
            # ONNX Runtime drops two conversions in a row, and with them the overflow.
            held = ir.node("Identity", [value])
            back = ir.node("Cast", [held.outputs[0]], attributes={"to": int(ir.DataType.FLOAT)})
            model.graph.insert_after(each, [held, back])
            name, value.name = value.name, f"{value.name}_half"
            back.outputs[0].name, back.outputs[0].type, back.outputs[0].shape = name, value.type, value.shape
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT16), None
            for user, index in users:
                user.replace_input_with(index, back.outputs[0])
            if ends:
                model.graph.outputs[model.graph.outputs.index(value)] = back.outputs[0]

    return fault


def _flipped(array):
    return array[..., ::-1]


def _dilate(model, module):
    attribute("Conv", "dilations", [2, 2])(model, module)
    attribute("Conv", "pads", [2, 2, 2, 2])(model, module)


#: What is planted → in which module of the source, and how.
FAULTS = {
    "a scaled weight": ("conv_in", weight("Conv", lambda array: array * 1.01)),
    "a mirrored kernel": ("down", weight("Conv", _flipped)),
    "a lost bias": ("conv_in", weight("Conv", np.zeros_like, 2)),
    "one wrong weight": ("attention.to_q", weight("MatMul", lambda array: array + 0.3 * np.eye(64)[19].reshape(8, 8))),
    "a turned matrix": ("attention.to_v", weight("MatMul", lambda array: array.T)),
    "a wrong bias": ("attention.to_out", weight("Add", lambda array: array + 0.01)),
    "a rounded weight": ("ff", weight("MatMul", lambda array: array.round(1))),
    "weights of another channel": ("conv_out", weight("Conv", lambda array: np.roll(array, 1, 0))),
    "a lost time": ("time", weight("Gemm", np.zeros_like)),
    "a wrong axis of a softmax": ("attention.softmax", attribute("Softmax", "axis", 1)),
    "a wrong axis of a norm's scale": (
        "layer_norm",
        weight("LayerNormalization", lambda array: array * np.linspace(0.9, 1.1, 8)),
    ),
    "a wrong epsilon of a layer norm": ("layer_norm", attribute("LayerNormalization", "epsilon", 1e-1)),
    "a wrong epsilon of a group norm": ("norm", attribute("InstanceNormalization", "epsilon", 1e-1)),
    "padding on one side": ("conv_in", attribute("Conv", "pads", [0, 0, 2, 2])),
    "padding of a stride": ("down", attribute("Conv", "pads", [0, 0, 2, 2])),
    "padding turned": ("up", attribute("Conv", "pads", [2, 1, 0, 1])),
    "dilation": ("conv_out", _dilate),
    "another activation": ("tanh", operator("Tanh", "Softsign")),
    "another gate": ("silu", operator("Sigmoid", "HardSigmoid")),
    "an overflow of fp16": ("loud", half("Conv")),
}
