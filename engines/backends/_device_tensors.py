"""ONNX Runtime with tensors that stay on a device, and CUDA graphs. The library's module is an argument; nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engines.signature import Signature

Sizes = tuple[tuple[str, int], ...]


@dataclass
class _Tensors:
    """What belongs to one set of sizes: addresses do not change, as a captured graph needs."""

    binding: Any
    run: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    held: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


class Bound:
    """Runs a session on tensors of its device; one set of them for each set of sizes.

    An array that is not writeable, and that is the same object as in the call before, is on the device already. One call at a
    time: threads that share it take turns, which the caller sees to.

    Args:
        vendor: the library's module.
        session: an open session.
        signature: its ports.
        place: the library's name of the device, and its number.
        graphs: the session captures CUDA graphs; each set of sizes gets one of its own.

    """

    def __init__(self, vendor: Any, session: Any, signature: Signature, place: tuple[str, int], *, graphs: bool) -> None:  # noqa: ANN401
        self._vendor, self._session, self._signature, self._place, self._graphs = vendor, session, signature, place, graphs
        self._sized: dict[Sizes, _Tensors] = {}

    def __call__(self, inputs: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Run once; outputs are the caller's own."""
        key = tuple(sorted(sizes.items()))
        found = self._sized.get(key)
        if found is None:
            found = self._sized[key] = self._bind(sizes)
        for name, tensor in found.inputs.items():
            array = inputs[name]
            if array.flags.writeable or found.held.get(name) is not array:
                tensor.update_inplace(np.ascontiguousarray(array))
                found.held[name] = array
        self._session.run_with_iobinding(found.binding, found.run)
        # On the processor the library gives its own memory away, which the next run writes to.
        return {name: np.array(tensor.numpy()) for name, tensor in found.outputs.items()}

    def _bind(self, sizes: Mapping[str, int]) -> _Tensors:
        binding, run = self._session.io_binding(), self._vendor.RunOptions()
        if self._graphs:
            run.add_run_config_entry("gpu_graph_id", str(len(self._sized) + 1))

        def made(port: Any) -> Any:  # noqa: ANN401
            shape = self._signature.shape(port, sizes)
            return self._vendor.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(port.dtype).type, *self._place)

        inputs = {port.name: made(port) for port in self._signature.inputs}
        outputs = {port.name: made(port) for port in self._signature.outputs}
        for name, tensor in inputs.items():
            binding.bind_ortvalue_input(name, tensor)
        for name, tensor in outputs.items():
            binding.bind_ortvalue_output(name, tensor)
        return _Tensors(binding, run, inputs, outputs)
