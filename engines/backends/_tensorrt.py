"""What the two TensorRT backends share: ONNX → engine file.

The vendor module `trt` is an argument, because TensorRT and TensorRT-RTX have one builder interface. Networks are strongly typed:
every precision stands in the graph, and no builder flag changes it.

Facts that shaped this file, each measured with TensorRT-RTX 1.7.1:

- The parser ignores the declared types of graph outputs, so the parsed network is compared with the signature.
- A failed write of the engine is swallowed: the build reports success. The writer keeps the error, and it is raised afterwards.
- Two builds of one graph may differ in a few bytes (99 of 49,456,068 for a UNet, seen in names like `proxy___mye458163`), because
  the compiler's own numbering varies, on one processor or two, in one process or a fresh one. See `same`.
- The stream writer saves the copy of the engine that a blob would hold: 1146 instead of 1430 MB for 432 MB of weights.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from engines.errors import UnsupportedError
from engines.plugins import did_you_mean
from engines.signature import Port, Signature

#: Precision of a recipe → oldest compute capability that has it. Measured with TensorRT-RTX 1.7.1, whose words for it are "Cannot
#: compile for target(s) sm86, because the model contains HW-specific datatypes: fp8_e4m3"; as in NVIDIA's matrices.
OLDEST: dict[str, tuple[int, int]] = {
    "fp32": (0, 0), "fp16": (0, 0), "int8": (0, 0), "bf16": (8, 0), "int4": (8, 0), "fp8": (8, 9), "fp4": (12, 0),
}  # fmt: skip
#: dtype of a port → name of the vendor's DataType.
DTYPES = {"float32": "FLOAT", "int64": "INT64"}


def oldest(precision: str) -> tuple[int, int]:
    """Oldest compute capability, (major, minor), whose GPUs run this precision.

    Raises:
        UnsupportedError: no such precision.

    """
    if precision not in OLDEST:
        raise UnsupportedError(f"no precision {precision!r}{did_you_mean(precision, list(OLDEST))}")
    return OLDEST[precision]


@functools.cache
def messages(trt: Any) -> Any:  # noqa: ANN401 - vendors ship no types
    """Return the one logger of a vendor's module: it keeps the latest warnings and errors as `kept`, and prints nothing.

    One for the life of the process, because the library holds on to the first logger that it is given.
    """

    class Messages(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # the binding wants this call by name
            self.kept: deque[tuple[int, str]] = deque(maxlen=64)

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
            if severity <= trt.ILogger.Severity.WARNING:
                self.kept.append((int(severity), msg.strip()))

        def last(self, count: int = 3) -> str:
            """Return the latest errors, or the latest warnings where there is no error, one to a line."""
            errors = [text for severity, text in self.kept if severity <= int(trt.ILogger.Severity.ERROR)]
            chosen = list(dict.fromkeys(errors or [text for _, text in self.kept]))[-count:]
            return "\n".join(f"  {text}" for text in chosen) or "  (it gave no reason)"

    return Messages()


def build(trt: Any, onnx: Path, signature: Signature, folder: Path, configure: Callable[[Any], None]) -> Path:  # noqa: ANN401
    """Build `folder/<stem of onnx>.engine`; written under a temporary name and renamed when complete.

    Args:
        trt: the vendor's module.
        onnx: graph, with its external data beside it.
        signature: names, types and ranges; dynamic inputs get one optimization profile (min, typical, max) from it.
        folder: where the engine goes; made if absent.
        configure: sets the backend's own options on the builder's configuration.

    Raises:
        UnsupportedError: the vendor cannot parse or build this graph (it is quoted), or it is not what the signature says.
        OSError: the engine could not be written.

    """
    log = messages(trt)
    log.kept.clear()
    builder = trt.Builder(log)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # needed by TensorRT 10, accepted and ignored later
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log)  # owns the mapped weights: must outlive the build
    if not parser.parse_from_file(str(onnx)):
        reasons = [_located(parser.get_error(index)) for index in range(parser.num_errors)]
        raise UnsupportedError(
            f"{onnx.name}: {trt.__name__} cannot read this graph.\n" + ("\n".join(reasons) or log.last())
            + "\n  Export it again with the backend's own operator set, or leave this target out."
        )  # fmt: skip
    _compare(network, signature, onnx, trt.__name__)
    config = builder.create_builder_config()
    configure(config)
    _add_profile(builder, config, network, signature)
    folder.mkdir(parents=True, exist_ok=True)
    engine, temporary = folder / f"{onnx.stem}.engine", folder / f".{onnx.stem}.engine.partial"
    try:
        with temporary.open("wb") as file:
            writer = _writer(trt, file)
            built = builder.build_serialized_network_to_stream(network, config, writer)
        if writer.failure is not None:
            raise writer.failure
        if not built or not temporary.stat().st_size:
            raise UnsupportedError(
                f"{onnx.name}: {trt.__name__} cannot build an engine from this graph.\n{log.last()}\n"
                "  Change this part's precision or shapes or the target's options, or leave this target out."
            )
        temporary.replace(engine)
    finally:
        temporary.unlink(missing_ok=True)
    return engine


def _located(error: Any) -> str:  # noqa: ANN401
    node = error.node_name() or error.node_operator()
    return f"  node {node} ({error.node_operator()}): {error.desc()}" if node else f"  {error.desc()}"


def _writer(trt: Any, file: BinaryIO) -> Any:  # noqa: ANN401
    class Writer(trt.IStreamWriter):
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)  # the binding wants this call by name
            self.failure: OSError | None = None

        def write(self, data: bytes) -> int:
            # An exception must not cross the library, which would print it and go on to report success.
            if self.failure is None:
                try:
                    return file.write(data)
                except OSError as error:
                    self.failure = error
            return 0

    return Writer()


def _lengths(signature: Signature, port: Port) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shape of a port at the low end, the typical point and the high end of the ranges."""
    shape = signature.shape
    return shape(port, signature.extent("min")), shape(port, signature.extent("typical")), shape(port, signature.extent("max"))


def _add_profile(builder: Any, config: Any, network: Any, signature: Signature) -> None:  # noqa: ANN401
    ports = {port.name: port for port in signature.inputs}
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor.name for tensor in tensors if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for name in dynamic:
        profile.set_shape(name, *_lengths(signature, ports[name]))
    config.add_optimization_profile(profile)


def _compare(network: Any, signature: Signature, onnx: Path, library: str) -> None:  # noqa: ANN401
    """Raise UnsupportedError, with all differences, where the parsed names, types or shapes are not the signature's."""
    problems: list[str] = []
    for side, ports, count, get in (
        ("input", signature.inputs, network.num_inputs, network.get_input),
        ("output", signature.outputs, network.num_outputs, network.get_output),
    ):
        tensors = {tensor.name: tensor for tensor in map(get, range(count))}
        if set(tensors) != {port.name for port in ports}:
            problems.append(f"its {side}s are {sorted(tensors)}; the signature says {sorted(port.name for port in ports)}")
            continue
        for port in ports:
            dtype, shape = tensors[port.name].dtype.name, tuple(tensors[port.name].shape)
            if dtype != DTYPES[port.dtype]:
                problems.append(
                    f"{side} {port.name!r} is {dtype} inside {library}; the signature says {port.dtype}: put a Cast there"
                )
            low, _, high = _lengths(signature, port)
            if len(shape) != len(low) or any(
                length not in {-1, least} or (length != -1 and least != most)
                for length, least, most in zip(shape, low, high, strict=True)
            ):
                problems.append(
                    f"{side} {port.name!r} is {list(shape)} (-1 is any length); the signature says {list(port.shape)}"
                )
    if problems:
        raise UnsupportedError("\n  ".join([f"{onnx.name}: the graph is not what its signature says.", *problems]))
