"""The on-disk format, and the only door between the halves.

A bundle is a directory: `manifest.json` and the files that it lists with size and SHA-256; nothing else is read. No pickle, no code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from engines.errors import BundleError
from engines.frozen import Frozen
from engines.signature import Name, Signature

FORMAT = 1
MANIFEST = "manifest.json"
#: Relative, contained, without `.` or `..` segments; the file behind it must not be a link.
RelativePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_@-][A-Za-z0-9_.@-]*(/[A-Za-z0-9_@-][A-Za-z0-9_.@-]*)*$", max_length=240)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Role = Literal["text", "denoiser", "decoder", "encoder"]


class File(Frozen):
    """One file of the bundle: size in bytes and SHA-256."""

    size: int = Field(ge=0)
    sha256: Digest


class Tokenizer(Frozen):
    """A `tokenizers` JSON file; its ids, padded to `length`, feed the input `feeds` of a text part."""

    file: RelativePath
    length: int = Field(ge=2)
    feeds: Name


class Guidance(Frozen):
    """How the prompt steers: compiled into the denoiser, so it cannot be run with the wrong one.

    `branches` is the second axis of token ids: 2 (negative, positive) for `classifier_free`, else 1.
    """

    mode: Literal["none", "classifier_free", "embedded"]
    scale: float | None = None

    @property
    def branches(self) -> int:
        """Prompts per picture that the text parts encode."""
        return 2 if self.mode == "classifier_free" else 1


class Onnx(Frozen):
    """One exported graph; `files` starts with the graph, then its external data. Node counts around the graph passes."""

    files: tuple[RelativePath, ...]
    nodes_exported: int
    nodes: int


class EngineFiles(Frozen):
    """What a backend built from one graph, and with what."""

    options: dict[str, Any]
    opset: int
    files: tuple[RelativePath, ...]
    version: str


class PartEntry(Frozen):
    """One network of the pipeline. `onnx` is keyed by operator set ("20"), `engines` by backend."""

    role: Role
    signature: Signature
    precision: Literal["fp32", "fp16", "bf16"]
    parameters: int = Field(ge=0)
    passes: tuple[str, ...] = ()
    onnx: dict[str, Onnx]
    engines: dict[Name, EngineFiles]


class SamplerEntry(Frozen):
    """A compiled sampler. `height` and `width` in pixels where the table depends on the size, else null."""

    kind: Name = "table"
    steps: int = Field(ge=1)
    height: int | None = None
    width: int | None = None
    file: RelativePath


class Verdict(Frozen):
    """One line of the blame table: what was compared, how far it is off, and the limit that it was held to."""

    part: str
    stage: str
    case: str
    backend: str | None = None
    relative_l2: float | None
    psnr: float | None
    limit: float | None
    passed: bool
    note: str = ""


class Manifest(Frozen):
    """Everything that the run time knows about a model, and the receipts."""

    format: Literal[1] = FORMAT
    name: str
    recipe: str
    source: dict[str, str]
    guidance: Guidance
    defaults: dict[str, int]
    tokenizers: dict[Name, Tokenizer]
    parts: dict[Name, PartEntry]
    samplers: tuple[SamplerEntry, ...]
    recordings: tuple[RelativePath, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str]
    files: dict[RelativePath, File]
