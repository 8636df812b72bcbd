"""A model's `config.pbtxt`, as text of Triton's protobuf message `ModelConfig`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engines.errors import UnsupportedError
from engines.manifest import PartEntry
from engines.signature import Port

#: Our types → Triton's.
_TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}
#: Microseconds that a call waits for others to share a batch with.
_DELAY = 2000
#: What the pipeline is given beside the prompt, all of it optional: name → type and length of its axes.
WISHES: dict[str, tuple[str, tuple[int, ...]]] = {
    "negative_prompt": ("TYPE_STRING", (-1,)),
    "prompt_2": ("TYPE_STRING", (-1,)),
    "negative_prompt_2": ("TYPE_STRING", (-1,)),
    "images_per_prompt": ("TYPE_INT32", (1,)),
    "seed": ("TYPE_INT64", (-1,)),
    "generator": ("TYPE_STRING", (1,)),
    "steps": ("TYPE_INT32", (1,)),
    "height": ("TYPE_INT32", (1,)),
    "width": ("TYPE_INT32", (1,)),
    "guidance_scale": ("TYPE_FP32", (-1,)),
    "image": ("TYPE_UINT8", (-1, -1, 3)),
    "mask": ("TYPE_UINT8", (-1, -1)),
    "strength": ("TYPE_FP32", (1,)),
}


def of_part(name: str, part: PartEntry, backend: str, file: str, gpus: Mapping[str, str] | None = None) -> str:
    """One network, whose batches are joined from the calls that wait for it.

    Args:
        name: of the model.
        part: the network.
        backend: Triton's name of who runs it.
        file: the engine's, or the graph's.
        gpus: compute capability → the engine's file for such GPUs, where they have their own.

    Raises:
        UnsupportedError: a port has no axis but the batch's, and is no number for each item.

    """
    signature = part.signature
    _, most, _ = signature.lengths(signature.inputs[0].shape[0])
    ports = [*(_port("input", port) for port in signature.inputs), *(_port("output", port) for port in signature.outputs)]
    head = [f'name: "{name}"', f'backend: "{backend}"', f'default_model_filename: "{file}"', f"max_batch_size: {most}"]
    head += [f'cc_model_filenames [ {{ key: "{gpu}" value: "{own}" }} ]' for gpu, own in (gpus or {}).items()]
    return "\n".join([*head, *ports, f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY} }}", ""])


def of_pipeline(name: str, instances: int) -> str:
    """The pipeline: prompts in, pictures out; as many requests at once as there are instances."""
    wishes = [_line("input", wish, kind, dims, optional=True) for wish, (kind, dims) in WISHES.items()]
    head = [f'name: "{name}"', 'backend: "python"', "max_batch_size: 0"]
    ports = [_line("input", "prompt", "TYPE_STRING", (-1,)), *wishes]
    ports += [_line("output", "images", "TYPE_UINT8", (-1, -1, -1, 3)), _line("output", "info", "TYPE_STRING", (-1,))]
    return "\n".join([*head, *ports, f"instance_group [ {{ count: {instances} kind: KIND_CPU }} ]", ""])


def _port(side: str, port: Port) -> str:
    # The batch's axis is not said, and an axis that is left must be: a number for each item is its own reshape.
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in port.shape[1:])
    if not port.shape or not isinstance(port.shape[0], str):
        raise UnsupportedError(f"the first axis of {port.name} is no batch that grows, so calls cannot be joined.")
    return _line(side, port.name, _TYPES[port.dtype], dims or (1,), scalar=not dims)


def _line(side: str, name: str, kind: str, dims: Sequence[int], *, optional: bool = False, scalar: bool = False) -> str:
    more = " optional: true" * optional + " reshape: { shape: [ ] }" * scalar
    return f'{side} [ {{ name: "{name}" data_type: {kind} dims: [ {", ".join(map(str, dims))} ]{more} }} ]'
