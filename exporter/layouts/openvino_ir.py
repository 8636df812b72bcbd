"""ONNX graphs and tokenizers → OpenVINO's own files, which OpenVINO GenAI and optimum-intel read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines.backends import vendor
from engines.errors import UnsupportedError

#: Schedulers that OpenVINO GenAI 2026.4 has.
SCHEDULERS = ("LCMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "PNDMScheduler")


def refuse(pipeline: Any) -> None:  # noqa: ANN401 - a diffusers pipeline
    """Raise UnsupportedError for what OpenVINO GenAI does not take, before anything is exported."""
    scheduler, vae = type(pipeline.scheduler).__name__, type(pipeline.vae).__name__
    if scheduler not in SCHEDULERS:
        raise UnsupportedError(f"OpenVINO GenAI has no {scheduler}; it has {', '.join(SCHEDULERS)}. Convert with --to optimum.")
    if vae != "AutoencoderKL":
        raise UnsupportedError(f"OpenVINO GenAI reads AutoencoderKL only, and this VAE is {vae}. Convert with --to optimum.")


def convert(graph: Path) -> None:
    """Write `openvino_model.xml` and `.bin` beside a graph, fp32 as it is, and remove the graph and its data."""
    library = vendor("openvino", "openvino", "openvino")
    library.save_model(library.Core().read_model(graph), graph.with_name("openvino_model.xml"), compress_to_fp16=False)
    for file in (graph, graph.with_name(f"{graph.name}.data")):
        file.unlink(missing_ok=True)


def write_tokenizer(tokenizer: Any, folder: Path) -> None:  # noqa: ANN401 - transformers'
    """Write a tokenizer as a graph, `openvino_tokenizer.xml`, which pads to the text encoder's length; and the way back."""
    library = vendor("openvino", "openvino", "openvino")
    words = vendor("openvino_tokenizers", "openvino-tokenizers", "convert")
    both = words.convert_tokenizer(tokenizer, with_detokenizer=True, use_max_padding=True)
    for name, model in zip(("openvino_tokenizer", "openvino_detokenizer"), both, strict=True):
        library.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)
