"""What is wrong with a graph whatever it computes: rules of ONNX, shapes, weights that are no numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

_REAL = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}


def lint(path: Path) -> list[str]:
    """Sentences on a graph, with its external data beside it; none of a good one."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
        found = []
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        found = [f"the checker of ONNX refuses it: {' '.join(lines[:3])}"]
    graph = ir.load(path).graph
    names = Counter(node.name for node in graph if node.name)
    found += [f"{count} nodes are called {name}" for name, count in names.items() if count > 1]
    found += [f"nothing reads the input {value.name}" for value in graph.inputs if not value.uses()]
    for name, value in graph.initializers.items():
        if not value.uses() and not value.is_graph_output():
            found.append(f"nothing reads the weight {name}")
        if value.dtype in _REAL and value.const_value is not None:
            array = value.const_value.numpy()
            if bad := int(np.count_nonzero(~np.isfinite(array))):
                found.append(f"{bad} of {array.size} values of the weight {name} are NaN or infinite")
    return found
