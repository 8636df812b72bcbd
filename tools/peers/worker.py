"""A peer's side of `tools.peers.bench`: stands alone, as it runs in the peer's own environment, with the peer's own libraries.

`python worker.py KIND MODEL` loads the exported model, says `{"ready": …}`, and then answers each line of JSON on stdin with
one on stdout: prompt, count, steps, height, width, guidance_scale, noise (a .npy) and out (a .npy to write, uint8 N, H, W, 3).
`python worker.py KIND MODEL ASK PNG` draws one picture, asked for in JSON, and ends.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys

import numpy as np


def _diffusers(pipeline):  # noqa: ANN001, ANN202 - no annotation of a library that only one of the environments has
    import torch  # noqa: PLC0415

    pipeline.set_progress_bar_config(disable=True)

    def draw(ask):  # noqa: ANN001, ANN202
        return pipeline(
            [ask["prompt"]] * ask["count"],
            latents=torch.from_numpy(np.load(ask["noise"])),
            height=ask["height"],
            width=ask["width"],
            num_inference_steps=ask["steps"],
            guidance_scale=1.0 if ask["guidance_scale"] is None else ask["guidance_scale"],
        ).images

    return draw


def _onnxruntime(model):  # noqa: ANN001, ANN202
    from optimum.onnxruntime import ORTDiffusionPipeline  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - the peer's environment

    return _diffusers(ORTDiffusionPipeline.from_pretrained(model, provider="CPUExecutionProvider"))


def _openvino(model, precision):  # noqa: ANN001, ANN202
    from optimum.intel import OVDiffusionPipeline  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - the peer's environment

    return _diffusers(OVDiffusionPipeline.from_pretrained(model, ov_config={"INFERENCE_PRECISION_HINT": precision}))


def _genai(model, precision):  # noqa: ANN001, ANN202
    import openvino  # noqa: PLC0415
    import openvino_genai  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - the peer's environment

    class Given(openvino_genai.Generator):
        """Answers the noise that it was given."""

        def __init__(self, noise) -> None:  # noqa: ANN001
            super().__init__()
            self.noise = noise

        def next(self):  # noqa: ANN202
            raise RuntimeError("the sampler draws single numbers, which are not supplied")

        def randn_tensor(self, shape):  # noqa: ANN001, ANN202
            return openvino.Tensor(np.ascontiguousarray(self.noise.reshape(list(shape))))

    pipeline = openvino_genai.Text2ImagePipeline(model, "CPU", INFERENCE_PRECISION_HINT=precision)

    def draw(ask):  # noqa: ANN001, ANN202
        made = pipeline.generate(
            ask["prompt"],
            num_images_per_prompt=ask["count"],
            height=ask["height"],
            width=ask["width"],
            num_inference_steps=ask["steps"],
            guidance_scale=1.0 if ask["guidance_scale"] is None else ask["guidance_scale"],
            generator=Given(np.load(ask["noise"])),
        )
        return list(made.data)

    return draw


KINDS = {
    "optimum-onnx": _onnxruntime,
    "optimum-intel": lambda model: _openvino(model, "f32"),
    "optimum-intel-bf16": lambda model: _openvino(model, "bf16"),
    "openvino-genai": lambda model: _genai(model, "f32"),
    "openvino-genai-bf16": lambda model: _genai(model, "bf16"),
}


def main() -> None:
    """Load, then draw whatever is asked until stdin ends."""
    # What the library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content) -> None:  # noqa: ANN001
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    kind, model, *once = sys.argv[1:]
    draw = KINDS[kind](model)
    if once:
        from PIL import Image  # noqa: PLC0415 - every environment has it

        Image.fromarray(np.asarray(draw(json.loads(once[0]))[0])).save(once[1])
        return
    names = ("onnxruntime", "openvino", "openvino-genai", "optimum-onnx", "optimum-intel", "diffusers", "transformers")
    answer({"ready": {name: importlib.metadata.version(name) for name in names if _is_installed(name)}})
    for line in sys.stdin:
        ask = json.loads(line)
        np.save(ask["out"], np.stack([np.asarray(image) for image in draw(ask)]))
        answer({"done": ask["out"]})


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
