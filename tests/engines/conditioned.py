"""A small bundle with all that a conditioned pipeline has: fed inputs, condition parts, two scales, an attention mask."""

import numpy as np

from engines.bundle import Guidance, Onnx, Tokenizer
from engines.guidance import Scale
from engines.inputs import Input, Preprocessing
from engines.signature import Port
from tests.engines import small

SIDES = {"latent_height": small.SIDE, "latent_width": small.SIDE}
PIXELS = ("batch", f"{small.FACTOR}*latent_height", f"{small.FACTOR}*latent_width")
INPUTS = {
    "hint": Input(
        kind="image", shape=(*PIXELS, 3), preprocessing=Preprocessing(mean=(0.5,), std=(0.5,)), about="edges, white on black"
    ),
    "keep": Input(
        kind="mask",
        shape=(*PIXELS, 1),
        default=1.0,
        preprocessing=Preprocessing(resize="stretch", resample="nearest", binarize=True),
    ),
    "hint_scale": Input(kind="number", shape=("batch",), minimum=0, maximum=2, default=1.0),
    "label": Input(kind="integer", shape=("batch",), minimum=0, maximum=9, default=0),
}
SCALES = (Scale(name="guidance_scale", default=2.0, off=1.0), Scale(name="image_guidance_scale", default=1.5))
STATES = Port(name="hint_states", shape=(*small.LATENT[:1], 1, *small.LATENT[2:]))
GATE = Port(name="gate", shape=("batch",))
MASK = Port(name="tokenizer_mask", dtype="int64", shape=("batch", 2, small.LENGTH))


def named(entry, name):
    """The same part, whose graph has another name."""
    file = f"onnx/20/{name}.onnx"
    engines = {key: engine.model_copy(update={"files": (file,)}) for key, engine in entry.engines.items()}
    return entry.model_copy(update={"onnx": {"20": Onnx(files=(file,), nodes_exported=9, nodes=5)}, "engines": engines})


def changes(**more):
    """What makes `small.draft` such a bundle."""
    parts = small.draft().parts
    fed = {name: entry.port(name) for name, entry in INPUTS.items()}
    denoiser = parts["unet"].signature
    inputs = (*denoiser.inputs, Port(name="image_guidance_scale", shape=("batch",)), STATES, GATE, MASK)
    conditions = {
        "hint_embedding": small.part("condition", (fed["hint"], fed["keep"]), (STATES,), SIDES),
        # In alphabetical order it comes first, and it waits for a text part and a condition.
        "aaa_gate": small.part("condition", (STATES, denoiser.port("prompt_embeds")), (GATE,), SIDES),
    }
    inputs += (fed["hint_scale"], fed["label"])
    unet = small.part("denoiser", inputs, denoiser.outputs, SIDES)
    return {
        "parts": {**parts, "unet": unet, **{name: named(entry, name) for name, entry in conditions.items()}},
        "inputs": INPUTS,
        "guidance": Guidance(mode="classifier_free", scales=SCALES),
        "tokenizers": {
            "tokenizer": Tokenizer(
                file="tokenizers/tokenizer.json", length=small.LENGTH, feeds="tokenizer_ids", mask="tokenizer_mask"
            )
        },
        **more,
    }


def networks(bundle, calls=None):
    """Functions, as of `small.networks`."""

    def embed(inputs):
        count, height, width, _ = inputs["hint"].shape
        grey = (inputs["hint"] * inputs["keep"]).mean(axis=3)
        cells = grey.reshape(count, height // small.FACTOR, small.FACTOR, width // small.FACTOR, small.FACTOR).mean((2, 4))
        return {"hint_states": cells[:, None]}

    def gate(inputs):
        return {"gate": 1 + inputs["hint_states"].mean((1, 2, 3)) + inputs["prompt_embeds"].mean((1, 2))}

    def denoise(inputs):
        embeds = inputs["prompt_embeds"][..., 0]
        steer = embeds[:, 0] + inputs["guidance_scale"] * (embeds[:, 1] - embeds[:, 0])
        steer += inputs["image_guidance_scale"] / 10 + inputs["timestep"] / 1000 + inputs["label"] / 10
        steer += inputs["tokenizer_mask"].astype(np.float32).mean((1, 2))
        hint = inputs["hint_states"] * (inputs["hint_scale"] * inputs["gate"])[:, None, None, None]
        return {"model_output": np.tanh(inputs["latent"] + hint + steer[:, None, None, None]).astype(np.float32)}

    def checked(name, function):
        def call(inputs):
            sizes = bundle.manifest.parts[name].signature.sizes(inputs)
            if calls is not None:
                calls.append((name, sizes["batch"]))
            return function(inputs)

        return call

    plain = small.networks(small_parts(bundle), calls)
    own = {"hint_embedding": embed, "aaa_gate": gate, "unet": denoise}
    return {**plain, **{name: checked(name, function) for name, function in own.items()}}


def small_parts(bundle):
    """The bundle as `small.networks` knows it: without the condition parts."""
    parts = {name: part for name, part in bundle.manifest.parts.items() if part.role != "condition"}

    class Seen:
        manifest = bundle.manifest.model_copy(update={"parts": parts})

    return Seen


def graphs(graph, float_type):
    """The same as ONNX files; `graph` writes one, with the ports of a part."""
    parts, axes = changes()["parts"], np.array([1, 2, 3])
    cells = np.array([0, 1, -1, small.FACTOR, small.FACTOR])
    return {
        "hint_embedding": graph(
            parts["hint_embedding"],
            [
                ("Mul", "hint keep", "kept", {}),
                ("ReduceMean", "kept last", "grey", {"keepdims": 1}),
                ("Transpose", "grey", "first", {"perm": [0, 3, 1, 2]}),
                ("AveragePool", "first", "hint_states", {"kernel_shape": cells[3:].tolist(), "strides": cells[3:].tolist()}),
            ],
            last=np.array([3]),
        ),
        "aaa_gate": graph(
            parts["aaa_gate"],
            [
                ("ReduceMean", "hint_states axes", "level", {"keepdims": 0}),
                ("ReduceMean", "prompt_embeds two", "word", {"keepdims": 0}),
                ("Add", "level word", "both", {}),
                ("Add", "both one", "gate", {}),
            ],
            axes=axes,
            two=axes[:2],
            one=np.float32(1),
        ),
        "unet": graph(
            parts["unet"],
            [
                ("Squeeze", "prompt_embeds last", "embeds", {}),
                ("Split", "embeds", "negative2 positive2", {"axis": 1, "num_outputs": 2}),
                ("Squeeze", "negative2 branch", "negative", {}),
                ("Squeeze", "positive2 branch", "positive", {}),
                ("Sub", "positive negative", "difference", {}),
                ("Mul", "difference guidance_scale", "steered", {}),
                ("Add", "negative steered", "steer", {}),
                ("Cast", "label", "number", {"to": float_type}),
                ("Add", "image_guidance_scale number", "tens", {}),
                ("Div", "tens ten", "tenth", {}),
                ("Div", "timestep thousand", "time", {}),
                ("Cast", "tokenizer_mask", "words", {"to": float_type}),
                ("ReduceMean", "words two", "read", {"keepdims": 0}),
                ("Sum", "steer tenth time read", "all", {}),
                ("Unsqueeze", "all axes", "shift", {}),
                ("Mul", "hint_scale gate", "weight", {}),
                ("Unsqueeze", "weight axes", "weight4", {}),
                ("Mul", "hint_states weight4", "hint", {}),
                ("Sum", "latent hint shift", "moved", {}),
                ("Tanh", "moved", "model_output", {}),
            ],
            last=np.array([2]),
            branch=np.array([1]),
            axes=axes,
            two=axes[:2],
            ten=np.float32(10),
            thousand=np.float32(1000),
        ),
    }
