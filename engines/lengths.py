"""Texts of open length: arrays padded to the longest of several pictures, and one run for those that are of one length.

Beside the arrays a pool holds, under the name of a dimension, how long it is for each picture. Padding is cut off before a
network is run, so that a picture is what it is alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engines.signature import Signature, dimension

Arrays = Mapping[str, np.ndarray]


def taken(signature: Signature, pool: Arrays) -> dict[str, np.ndarray]:
    """What of a pool a part takes, and how long its open dimensions are."""
    return {name: pool[name] for name in (*(port.name for port in signature.inputs), *signature.dims) if name in pool}


def run(network: Callable[[Arrays], dict[str, np.ndarray]], signature: Signature, inputs: Arrays) -> dict[str, np.ndarray]:
    """Run a part on what `taken` gives, on pictures of equal lengths at once; those of its outputs are among what is returned."""
    lengths = {dim: array for dim, array in inputs.items() if dim in signature.dims}
    arrays = {name: array for name, array in inputs.items() if name not in lengths}
    made = _made(signature)
    if not lengths and not made:
        return network(arrays)
    count = len(next(iter(arrays.values())))
    groups: dict[tuple[int, ...], list[int]] = {}
    for index in range(count):
        groups.setdefault(tuple(int(array[index]) for array in lengths.values()), []).append(index)
    found = list[dict[str, np.ndarray]]()
    for own, rows in groups.items():
        outputs = network(_cut(signature, arrays, dict(zip(lengths, own, strict=True)), None if len(groups) == 1 else rows))
        outputs |= {dim: np.full(len(rows), outputs[name].shape[axis] // factor) for dim, (name, axis, factor) in made.items()}
        found.append(outputs)
    order = np.argsort([index for rows in groups.values() for index in rows])
    return found[0] if len(found) == 1 else {name: array[order] for name, array in joined(found).items()}


def joined(pieces: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """Several batches as one, each array padded with zeros to the longest; what says how long they are is joined as well."""
    found = dict[str, np.ndarray]()
    for name in pieces[0]:
        own = [piece[name] for piece in pieces]
        longest = np.max([array.shape[1:] for array in own], axis=0)
        widths = [
            [(0, 0), *((0, int(most - length)) for most, length in zip(longest, array.shape[1:], strict=True))] for array in own
        ]
        found[name] = np.concatenate([np.pad(array, width) for array, width in zip(own, widths, strict=True)])
    return found


def _made(signature: Signature) -> dict[str, tuple[str, int, int]]:
    """Dimension that only outputs have → an output, its axis and how many of it are one."""
    known = {dimension(dim)[1] for port in signature.inputs for dim in port.shape if isinstance(dim, str)}
    return {
        name: (port.name, axis, factor)
        for port in signature.outputs
        for axis, dim in enumerate(port.shape)
        if isinstance(dim, str)
        for factor, name in [dimension(dim)]
        if name not in known
    }


def _cut(signature: Signature, arrays: Arrays, lengths: Mapping[str, int], rows: Sequence[int] | None) -> Arrays:
    """Some pictures' arrays without their padding; the very same ones where all are wanted and none is padded."""
    shared, found = signature.shared, dict(arrays)
    for port in signature.inputs:
        if port.name not in arrays:
            continue
        array = arrays[port.name]
        own = [slice(None)] * array.ndim
        for axis, dim in enumerate(port.shape):
            factor, name = dimension(dim) if isinstance(dim, str) else (1, "")
            if name in lengths and array.shape[axis] != factor * lengths[name]:
                own[axis] = slice(0, factor * lengths[name])
        array = array if rows is None or port.name in shared else array[rows]
        found[port.name] = array if own == [slice(None)] * array.ndim else np.ascontiguousarray(array[tuple(own)])
    return found
