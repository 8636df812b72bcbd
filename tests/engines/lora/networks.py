"""A network of three layers that takes LoRAs, in numpy: its inputs' arithmetic is what a graph of it would compute."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from engines.bundle import Bundle
from engines.lora.layers import LoraLayer, LoraLayers, LoraLimits, extended
from engines.manifest import LoraInputs
from tests.engines import small

LIMITS = LoraLimits(slots=2, max_rank=8, conv_rank=8)
LAYERS = (
    LoraLayer(name="blocks.0.to_q", spelled=("blocks.0.to_q", "input_blocks.1.to_q"), shape=(6, 4), index=0),
    LoraLayer(name="blocks.0.proj", spelled=("blocks.0.proj",), shape=(5, 4, 1, 1), index=1),
    LoraLayer(name="blocks.0.conv", spelled=("blocks.0.conv",), shape=(3, 4, 3, 3), index=2),
    LoraLayer(name="conv_in", spelled=("conv_in",), shape=(3, 4, 3, 3)),
)


def bundle(folder: Path, *, limits=LIMITS, layers=LAYERS) -> Bundle:
    """The small bundle, whose UNet takes LoRAs."""
    parts = small.draft().parts
    unet, entry = parts["unet"], LoraInputs(limits=limits, layers="lora/unet.json")
    signature = extended(unet.signature, layers, limits)
    (folder / "lora").mkdir(parents=True)
    (folder / "lora/unet.json").write_text(LoraLayers(layers=layers).model_dump_json())
    return small.make(folder, parts={**parts, "unet": unet.model_copy(update={"signature": signature, "lora": entry})})


def networks(bundle, seen=None):
    """The small bundle's functions; the UNet adds what a layer of ones makes of its LoRA. `seen` gets what it was fed."""
    found = small.networks(bundle)
    plain = small.functions()["unet"]
    signature = bundle.manifest.parts["unet"].signature

    def denoise(inputs):
        inputs = signature.filled(inputs)
        signature.sizes(inputs)
        if seen is not None:
            seen.append(inputs)
        answer = plain({name: array for name, array in inputs.items() if not name.startswith("lora_")})["model_output"]
        rows = (inputs["lora_a_0"].sum(0) * inputs["lora_scale"]) @ inputs["lora_b_0"]
        kernels = inputs["lora_a_2"].sum((1, 2, 3)) * inputs["lora_scale_conv"]
        change = rows.sum(1) + (kernels @ inputs["lora_b_2"][:, :, 0, 0].T).sum(1)
        return {"model_output": answer + 0.01 * change[:, None, None, None]}

    return {**found, "unet": denoise}


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def tensors(rank=3, seed=0, names=("blocks.0.to_q", "blocks.0.proj", "blocks.0.conv"), start="unet."):
    """A LoRA as diffusers writes it."""
    shapes, found = {layer.name: layer.shape for layer in LAYERS}, {}
    for name in names:
        out, *into = shapes[name]
        found[f"{start}{name}.lora_A.weight"] = random(rank, *into, seed=seed)
        found[f"{start}{name}.lora_B.weight"] = random(out, rank, *[1] * (len(into) - 1), seed=seed + 1)
    return found


def saved(file: Path, found=None, **words):
    save_file(tensors() if found is None else found, file, words or None)
    return file
