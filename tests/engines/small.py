"""A bundle of a few kilobytes whose networks are Python functions."""

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from engines.bundle import Defaults, Draft, EngineFiles, Guidance, Onnx, PartEntry, SamplerEntry, Tokenizer, write
from engines.guidance import PERTURBED, Scale
from engines.noise_process import Process, ProcessProvenance
from engines.samplers.table import Draw, Emit, Eval, GivenLatent, Handovers, Starts, Table, TableProvenance
from engines.signature import Port, Range, Signature

LENGTH, CHANNELS, FACTOR = 6, 4, 8
BATCH = Range(min=1, typical=1, max=2)
SIDE = Range(min=2, typical=4, max=8, multiple=2)
WORDS = ["a", "red", "blue", "square", "circle", "on", "the", "sea"]
LATENT = ("batch", CHANNELS, "latent_height", "latent_width")


def tokenizer_json():
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<start>", "<end>", "<unknown>", *WORDS])}
    made = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))  # noqa: S106
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)])
    made.enable_padding(pad_id=0, pad_token="<pad>", length=LENGTH)  # noqa: S106
    return made.to_str()


def table(steps=2, draws=1):
    ops = [Draw() for _ in range(draws)]
    for step in range(steps):
        ops.append(Eval(t=999.0 - 400 * step, row=tuple(0.5 + 0.25 * index for index in range(len(ops)))))
    row = tuple((-1.0) ** index * 0.5 for index in range(len(ops)))
    return Table(
        provenance=TableProvenance(scheduler="Toy", config={"shift": 3}, library="none", steps=steps, deviation=1e-7),
        ops=(*ops, Emit(row=row)),
    )


def starts(steps=2):
    """Tables that start from an image; step j sees as much noise as there are steps to go."""

    def ops(first, alone):
        made = [Draw(), GivenLatent(name="image")]
        for step in range(first, steps):
            level = 1 - step / steps
            mixed, row = (level, 1 - level), (level, 1 - level, *[0.25] * (len(made) - 2))
            noise = alone and step == first
            kept = (1.0,) if noise else mixed
            made.append(Eval(t=999.0 - 400 * step, row=kept if noise else row, kept=kept, preview=(1.0, -0.5)))
        return (*made, Emit(row=(0.0, 0.5, *[0.5] * (len(made) - 2)), kept=(0.0, 1.0)))

    tables = tuple(ops(start, alone=False) for start in range(steps))
    return Starts(provenance=table(steps).provenance, alone=ops(0, alone=True), starts=tables)


def handovers(steps=2):
    """Tables that stop or begin between two steps, at 1.0 and then every 0.4 before it; the model sees half the latent."""
    times = [999.0 - 400 * step for step in range(steps)]

    def ops(first):
        made = [Draw() if first is None else GivenLatent(name="image")]
        for time in times[first or 0 :]:
            made.append(Eval(t=time, row=(0.5, *[-0.25] * (len(made) - 1)), own=2.0))
        return (*made, Emit(row=(1.0, *[-0.5] * (len(made) - 1))))

    starts = {left: ops(left) for left in range(steps)}
    provenance = table(steps).provenance
    return Handovers(provenance=provenance, training_times=1000, paired=False, times=times, whole=ops(None), starts=starts)


def process(times=20, prediction="epsilon"):
    provenance = ProcessProvenance(scheduler="Toy", config={"shift": 3}, library="none")
    logs = tuple(-0.001 - 5 * (time / (times - 1)) ** 2 for time in range(times))
    return Process(provenance=provenance, prediction=prediction, log_alpha_bar=logs)


def part(role, inputs, outputs, dims):
    signature = Signature(inputs=inputs, outputs=outputs, dims={"batch": BATCH, **dims})
    names = {"text": "text_encoder", "denoiser": "unet", "decoder": "vae_decoder", "encoder": "vae_encoder"}
    name = {**names, "shallow": "unet_shallow"}.get(role, "pipeline_2")
    file = f"onnx/20/{name}.onnx"
    return PartEntry(
        role=role,
        signature=signature,
        precision="fp32",
        parameters=7,
        onnx={"20": Onnx(files=(file,), nodes_exported=9, nodes=5)},
        engines={"onnxruntime": EngineFiles(options={"threads": 1}, opset=20, files=(file,), version="1.31.1")},
    )


def draft(mode="classifier_free", *, encoder=False, handover=False, **changes):
    branches = 2 if mode == "classifier_free" else 1
    scale = () if mode == "none" else (Port(name="guidance_scale", shape=("batch",)),)
    embeds = Port(name="prompt_embeds", shape=("batch", branches, 1))
    latent, sides = Port(name="latent", shape=LATENT), {"latent_height": SIDE, "latent_width": SIDE}
    image = Port(name="image", shape=("batch", f"{FACTOR}*latent_height", f"{FACTOR}*latent_width", 3))
    ids = Port(name="tokenizer_ids", dtype="int64", shape=("batch", branches, LENGTH))
    denoiser_inputs = (latent, Port(name="timestep", shape=("batch",)), *scale, embeds)
    content = {
        "name": "small",
        "recipe": "model: {source: nowhere}\n",
        "source": {"revision": "0"},
        "guidance": Guidance.of(mode, None if mode == "none" else 2.0),
        "defaults": Defaults(height=32, width=32, steps=2),
        "tokenizers": {"tokenizer": Tokenizer(file="tokenizers/tokenizer.json", length=LENGTH, feeds="tokenizer_ids")},
        "parts": {
            "text_encoder": part("text", (ids,), (embeds,), {}),
            "unet": part("denoiser", denoiser_inputs, (Port(name="model_output", shape=LATENT),), sides),
            "vae_decoder": part("decoder", (latent,), (image,), sides),
        },
        "samplers": (
            SamplerEntry(steps=2, file="samplers/2.json"),
            SamplerEntry(steps=4, height=64, width=32, file="samplers/4.json"),
        ),
        "process": "samplers/process.json",
        "versions": {"t2iexport": "0.1.0"},
    }
    if encoder:
        content["parts"]["vae_encoder"] = part("encoder", (image, Port(name="noise", shape=LATENT)), (latent,), sides)
        content["samplers"] = tuple(
            entry.model_copy(update={"image": f"samplers/{entry.steps}-image.json"}) for entry in content["samplers"]
        )
    if handover:
        content["samplers"] = tuple(
            entry.model_copy(update={"handover": f"samplers/{entry.steps}-handover.json"}) for entry in content["samplers"]
        )
    return Draft(**{**content, **changes})


def caching():
    """Changes of a draft: guidance whose branches are open, and a denoiser that leaves a deep feature for its shallow part."""
    latent, sides = Port(name="latent", shape=LATENT), {"latent_height": SIDE, "latent_width": SIDE}
    dims = {**sides, "branches": Range(min=1, typical=2, max=2)}
    numbers = (Port(name="timestep", shape=("batch",)), Port(name="guidance_scale", shape=("batch",)))
    embeds = Port(name="prompt_embeds", shape=("batch", "branches", 1))
    deep = Port(name="deep_feature", shape=("batch", "branches", 3, "latent_height", "latent_width"))
    answer = Port(name="model_output", shape=LATENT)
    unet = part("denoiser", (latent, *numbers, embeds), (answer, deep), dims)
    return {"parts": {**draft().parts, "unet": unet, "unet_shallow": part("shallow", (latent, *numbers, deep), (answer,), dims)}}


def perturbed():
    """Changes of a draft: one branch more, the prompt's with perturbed attention."""
    usual = draft().guidance
    scale = Scale(name=PERTURBED, default=3.0, off=0.0, perturbs=True)
    latent, sides = Port(name="latent", shape=LATENT), {"latent_height": SIDE, "latent_width": SIDE}
    numbers = [Port(name=name, shape=("batch",)) for name in ("timestep", "guidance_scale", PERTURBED)]
    embeds = Port(name="prompt_embeds", shape=("batch", "branches", 1))
    dims = {**sides, "branches": Range(min=1, typical=3, max=3)}
    unet = part("denoiser", (latent, *numbers, embeds), (Port(name="model_output", shape=LATENT),), dims)
    guidance = Guidance(mode=usual.mode, scales=(*usual.scales, scale))
    return {"guidance": guidance, "parts": {**draft().parts, "unet": unet}}


def make(folder, *, graphs=None, **changes):
    """Write the bundle into `folder` and open it; `graphs` are the bytes of real ONNX files by part."""
    content = draft(**changes)
    for below in ("onnx/20", "tokenizers", "samplers"):
        (folder / below).mkdir(parents=True)
    for name, entry in content.parts.items():
        for file in entry.onnx["20"].files:
            (folder / file).write_bytes((graphs or {}).get(name, file.encode()))
    (folder / "tokenizers/tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    for sampler in content.samplers:
        table(sampler.steps).dump(folder / sampler.file)
        if sampler.image:
            starts(sampler.steps).dump(folder / sampler.image)
        if sampler.handover:
            handovers(sampler.steps).dump(folder / sampler.handover)
    if content.process:
        process().dump(folder / content.process)
    return write(folder, content)


def functions():
    """What each network computes."""

    def text(inputs):
        return {"prompt_embeds": inputs["tokenizer_ids"].mean(axis=2, keepdims=True).astype(np.float32) / 16}

    def denoise(inputs):
        embeds = inputs["prompt_embeds"]
        steer = embeds[:, -1] - embeds[:, 0] + embeds[:, 0]
        if "guidance_scale" in inputs:
            steer = embeds[:, 0] + inputs["guidance_scale"][:, None] * (embeds[:, -1] - embeds[:, 0])
        time = inputs["timestep"][:, None, None, None] / 1000
        return {"model_output": np.tanh(inputs["latent"] + steer[:, :, None, None] + time)}

    def decode(inputs):
        latent = inputs["latent"].transpose(0, 2, 3, 1)[..., :3]
        return {"image": (latent.repeat(FACTOR, 1).repeat(FACTOR, 2) / 4 + 0.5).clip(0, 1)}

    def encode(inputs):
        count, height, width, _ = inputs["image"].shape
        cells = inputs["image"].reshape(count, height // FACTOR, FACTOR, width // FACTOR, FACTOR, 3).mean((2, 4)) * 4 - 2
        latent = 0.1 * inputs["noise"]
        latent[:, :3] += cells.transpose(0, 3, 1, 2)
        return {"latent": latent}

    return {"text_encoder": text, "unet": denoise, "vae_decoder": decode, "vae_encoder": encode}


def networks(bundle, calls=None):
    """Functions that check what they are given as an engine does, and note (name, batch) in `calls`."""

    def checked(name, function):
        def call(inputs):
            sizes = bundle.manifest.parts[name].signature.sizes(inputs)
            if calls is not None:
                calls.append((name, sizes["batch"]))
            return function(inputs)

        return call

    return {name: checked(name, functions()[name]) for name in bundle.manifest.parts}


def fused(mode="classifier_free", draws=2):
    """Changes that make the draft one whole pipeline of 2 steps, a picture a call."""
    parts = draft(mode).parts
    (ids,), latent = parts["text_encoder"].signature.inputs, parts["unet"].signature.port("latent")
    noise = Port(name="noise", shape=(latent.shape[0], draws, *latent.shape[1:]))
    scale = [port for port in parts["unet"].signature.inputs if port.name == "guidance_scale"]
    sides = {"latent_height": SIDE, "latent_width": SIDE}
    whole = part("pipeline", (ids, noise, *scale), parts["vae_decoder"].signature.outputs, sides)
    silent = {name: entry.model_copy(update={"engines": {}}) for name, entry in parts.items()}
    return {"parts": {**silent, "pipeline_2": whole}, "samplers": (SamplerEntry(steps=2, file="samplers/2.json"),)}
