"""A graph from a few lines of ONNX's own text format, with constants to use."""

import numpy as np
import onnx.parser
import onnx_ir as ir


def model(*lines: str, size: int = 2) -> ir.Model:
    """Float input x and output y of length `size`; initializers one, two, also_two, large and also_large, where used."""
    body = "\n".join(lines)
    parsed = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> agraph (float[{size}] x) => (float[{size}] y) {{\n{body}\n}}'
    )
    built = ir.from_proto(parsed)
    values = {"one": 1.0, "two": 2.0, "also_two": 2.0, "large": 5.0, "also_large": 5.0}
    used: dict[str, ir.Value] = {}
    for name, number in values.items():
        if name in words(body):
            tensor = ir.tensor(np.full(size, number, np.float32), name=name)
            value = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
            used[name] = value
            built.graph.register_initializer(value)
    for node in built.graph:
        for index, given in enumerate(node.inputs):
            if given is not None and given.name in used and given is not used[given.name]:
                node.replace_input_with(index, used[given.name])
    return built


def words(text: str) -> set[str]:
    """Names that appear as arguments."""
    return {word.strip() for call in text.split("(")[1:] for word in call.partition(")")[0].split(",")}
