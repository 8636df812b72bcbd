"""A pipeline's networks → a folder in another tool's layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from engines.disk import require_folder, writing
from engines.errors import UnsupportedError
from exporter.layouts import folder as beside
from exporter.layouts import openvino_ir, ortpackage, plain
from exporter.onnx.export import save

if TYPE_CHECKING:
    from engines.manifest import Manifest

Layout = Literal["optimum", "openvino-genai", "ortpackage"]
#: Whose networks `plain` knows by their names.
_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def require(pipeline: str, manifest: Manifest, out: Path) -> None:
    """Raise UnsupportedError for what no such folder can hold, before anything is loaded: these tools read prompts themselves.

    `pipeline` is the class in diffusers that draws with the model.
    """
    if any(scale.perturbs for scale in manifest.guidance.scales):
        raise UnsupportedError("these layouts have no perturbed attention. Build without sampler.guidance.pag.")
    if pipeline not in _PIPELINES:
        raise UnsupportedError(f"a folder is written of {' and '.join(_PIPELINES)}, and this model is drawn with by {pipeline}.")
    for name, entry in manifest.tokenizers.items():
        if entry.chunks > 1 or entry.weights:
            raise UnsupportedError(
                f"{name} reads prompts in chunks or with weights of words, which the other tools do not. Build without prompts."
            )
    if manifest.inputs:
        raise UnsupportedError(f"these layouts have no place for the inputs {', '.join(manifest.inputs)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UnsupportedError(f"{out} is there and not empty, and nothing is written over. Remove it, or name another.")


def convert(pipeline: Any, manifest: Manifest, layout: Layout, out: Path, say: Callable[[str], None]) -> None:  # noqa: ANN401
    """Write the networks of a diffusers pipeline and what lies beside them; nothing is there until all of it is.

    Args:
        pipeline: of diffusers, fp32, with the networks as the recipe's passes leave them.
        manifest: of the bundle, whose sizes the graphs have.
        layout: whose.
        out: a folder that is empty or not there.
        say: told what is exported.

    Raises:
        UnsupportedError: the layout cannot hold it, or torch cannot export it.
        MissingDependency: OpenVINO, or its tokenizers, are not installed.
        MachineError: it cannot be written.

    """
    genai = layout == "openvino-genai"
    if genai:
        openvino_ir.refuse(pipeline)
    require_folder(out.parent)
    temporary = out.with_name(f".{out.name}.{uuid4().hex[:8]}.partial")
    opset = max(int(number) for entry in manifest.parts.values() for number in entry.onnx)
    try:
        with writing(out.parent, f"writing {out}"):
            temporary.mkdir()
            beside.write(pipeline, temporary)
            components: list[str] = []
            for part in plain.parts(pipeline, manifest.parts):
                say(f"export {part.name}, operator set {opset}")
                exported = plain.graph(part, opset)
                if genai and part.role == "denoiser":
                    plain.whole_times(exported.model)
                save(exported, temporary / part.name / "model.onnx")
                components.append(part.name)
            for name in {"vae_encoder"} - {*components}:
                shutil.rmtree(temporary / name)  # its config alone would be taken for a network
            for name in components if genai else ():
                openvino_ir.convert(temporary / name / "model.onnx")
            for name in beside.TOKENIZERS if genai else ():
                if getattr(pipeline, name, None) is not None:
                    openvino_ir.write_tokenizer(getattr(pipeline, name), temporary / name)
            if layout == "ortpackage":
                ortpackage.write(temporary, manifest.name, components)
            if out.exists():
                out.rmdir()
            temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def notes(manifest: Manifest, steps: Mapping[str, float]) -> list[str]:
    """What of the bundle the folder does not hold, and how its pictures are asked for there, a sentence each."""
    found = [f"{name} is {entry.precision} in the bundle and fp32 here" for name, entry in manifest.parts.items()
             if entry.precision != "fp32"]  # fmt: skip
    found += [f"{name} is {entry.quantized.format} in the bundle and not quantized here" for name, entry in manifest.parts.items()
              if entry.quantized]  # fmt: skip
    if steps:
        found.append(f"steps are taken with {', '.join(f'{name}={value:g}' for name, value in steps.items())} in the bundle; "
                     "say so when you call the scheduler")  # fmt: skip
    scale = manifest.guidance.scale
    asked = f"num_inference_steps={manifest.defaults.steps}, height={manifest.defaults.height}, width={manifest.defaults.width}"
    return [*found, f"draw with {asked}, guidance_scale={1.0 if scale is None else scale:g}"]
