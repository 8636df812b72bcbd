"""The schema of a bundle's `manifest.json`: closed, typed, cross-checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, StringConstraints, model_validator

from engines import wiring
from engines.errors import UnsupportedError
from engines.guidance import Guidance
from engines.inputs import Input, taken
from engines.lora.layers import LoraLimits
from engines.signature import Name, Signature
from engines.strict import Ascending, Frozen, Ordered
from engines.weighted_text import Syntax
from engines.wiring import Role

#: 2: samplers that start from an image. 3: decoders that work tile by tile. 4: inputs that users feed, condition parts, several
#: guidance scales, attention masks. 5: LoRAs as inputs; shallow parts, and samplers that ask for guidance and caching by step;
#: texts of open length; inputs that are noise; guidance scales with a branch of their own; samplers that stop or begin between
#: two steps.
#: Manifests of earlier formats are read too: `engines.upgrade`.
FORMAT = 5
#: Relative, contained, without `.` or `..` segments; the file behind it must not be a link.
_SEGMENT = "[A-Za-z0-9_@-][A-Za-z0-9_.@-]*"
RelativePath = Annotated[str, StringConstraints(pattern=f"^{_SEGMENT}(/{_SEGMENT})*$", max_length=240)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

#: Whose numbers a seed stands for: Philox of numpy; torch's Mersenne Twister on a CPU; or its Philox on an NVIDIA GPU.
Generator = Literal["numpy", "torch-cpu", "torch-cuda"]
#: What a picture is made from, beside noise.
StartsFrom = Literal["image", "mask"]
#: What becomes of the step in which a strength ends: it is dropped, as Stable Diffusion's pipelines do, or taken whole; or none
#: ends within a step, since all are spread over the strength, as LCM's do.
PartialStep = Literal["dropped", "taken", "spread"]


class File(Frozen):
    """One file of the bundle: size in bytes and SHA-256."""

    size: int = Field(ge=0)
    sha256: Digest


#: Of a negative prompt and a prompt: which is which.
NEGATIVE, PROMPT = 0, 1


class OpenLength(Frozen):
    """Of a tokenizer whose texts are as long as they are: the dimension that counts their ids, in multiples of `multiple`.

    `branch`: whose texts it reads, where those of the other branch have a length of their own.
    """

    dim: Name
    multiple: int = Field(default=1, ge=1, le=2**10)
    branch: Literal["prompt", "negative"] | None = None


class Tokenizer(Frozen):
    """A `tokenizers` JSON file; its ids, padded to `length`, feed the input `feeds` of text parts.

    `open`: texts have no more ids than they need, and at most `length`.
    `mask`: the input that its attention mask feeds, of any part: int64 as the ids, 1 for a token and 0 for padding.
    `before`: what the model wants in front of every text.
    `after`: the same behind it.
    `lower`: whether texts are read in small letters, without blanks at their ends.
    `empty`: what is read in the place of an empty text, with nothing around it.
    `chunks`: equal pieces that the ids are in, each with its own special tokens and padding.
    `weights`: the input that takes what each token counts, float32 as the ids, in the `syntax` in which prompts say so. Without
    one prompts are taken literally.
    `downweighted`: groups of words of a text that may count less than 1, in compel's syntax.
    `pictures`: tokens that stand for pictures that a text encoder sees, and so for nothing in a text that a user gives.
    """

    file: RelativePath
    length: int = Field(ge=2, le=2**16)
    feeds: Name
    mask: Name | None = None
    before: str = ""
    after: str = ""
    lower: bool = False
    empty: str = ""
    chunks: int = Field(default=1, ge=1)
    weights: Name | None = None
    syntax: Syntax | None = None
    downweighted: int = Field(default=0, ge=0)
    open: OpenLength | None = None
    pictures: tuple[str, ...] = ()

    def rows(self, branches: int) -> tuple[int, ...]:
        """Which texts of a pair, the negative one and the prompt, are tokenized where so many branches are computed."""
        if self.open and self.open.branch:
            return (NEGATIVE,) if self.open.branch == "negative" else (PROMPT,)
        return (NEGATIVE, PROMPT)[-branches:]

    def shown(self, text: str) -> str:
        """What of a text is tokenized."""
        return (not text and self.empty) or self.before + (text.lower().strip() if self.lower else text) + self.after

    @model_validator(mode="after")
    def _divided(self) -> Self:
        if self.length % self.chunks or self.length // self.chunks < 2:
            raise ValueError(f"{self.length} ids cannot be {self.chunks} equal chunks")
        if (self.weights is None) != (self.syntax is None):
            raise ValueError("weights of tokens need both an input and a syntax")
        if self.open and (self.chunks > 1 or self.weights or self.length % self.open.multiple):
            raise ValueError(f"an open length of up to {self.length} ids is one chunk without weights, in whole multiples")
        return self


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


class Tile(Frozen):
    """How a decoder divides a large latent: side of a tile, and what neighbours share at least, in cells of the latent."""

    size: int = Field(ge=2, description="side of a tile, in cells of the latent; of Stable Diffusion's 64 are 512 pixels")
    overlap: int = Field(ge=1, description="what two neighbours share at least, over which they are blended")

    @model_validator(mode="after")
    def _sharing(self) -> Self:
        if 2 * self.overlap > self.size:
            raise ValueError(f"overlap {self.overlap} is more than half of size {self.size}; a quarter is usual")
        return self


class Quantized(Frozen):
    """How a part's graphs were quantized: layers in all and so many as the format says, those kept from it, and the evidence."""

    format: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")]
    layers: int = Field(ge=1)
    quantized: int = Field(ge=1)
    kept: tuple[str, ...] = ()
    calibration: RelativePath


class LoraInputs(Frozen):
    """LoRAs that a part takes as inputs: how many and how large, and the file of its layers (`engines.lora.layers`)."""

    limits: LoraLimits
    layers: RelativePath


class PartEntry(Frozen):
    """One network of the pipeline, or the pipeline whole. `onnx` is keyed by operator set ("20"), `engines` by backend.

    `remade`: its passes made another network of it on purpose, so that it is no longer held to the source's outputs.
    `tile`: of a decoder whose engine takes no larger latent than that; the pipeline goes over a larger one tile by tile.
    """

    role: Role
    signature: Signature
    precision: Literal["fp32", "fp16", "bf16"]
    parameters: int = Field(ge=0)
    passes: tuple[str, ...] = ()
    remade: bool = False
    tile: Tile | None = None

    quantized: Quantized | None = None
    lora: LoraInputs | None = None
    onnx: dict[str, Onnx]
    engines: dict[Name, EngineFiles]

    @model_validator(mode="after")
    def _divided(self) -> Self:
        if self.tile and self.role != "decoder":
            raise ValueError(f"a {self.role} has tiles, and only a decoder's work is divided")
        if self.tile and len(self.signature.inputs) > 1:
            raise ValueError("a decoder that takes more than a latent has no tiles: nothing says how the rest is divided")
        return self


class SamplerEntry(Frozen):
    """A compiled sampler. `height` and `width` in pixels where the table depends on the size, else null.

    `image` is the file of its tables that start from an image, where the bundle has an encoder.
    `handover` is the file of those that stop or begin between two steps, where its recipe asks for them.
    """

    kind: Name = "table"
    steps: int = Field(ge=1)
    height: int | None = None
    width: int | None = None
    file: RelativePath
    image: RelativePath | None = None
    handover: RelativePath | None = None


class Verdict(Frozen):
    """One line of the blame table: what was compared, how far it is off, and the limits that it was held to.

    `values`: metric → its worst value, of those that were measured. `limit`: metric → what its value must not be worse than.
    """

    part: str
    stage: str
    case: str
    backend: str | None = None
    values: dict[Name, float] = Field(default_factory=dict)
    limit: dict[Name, float] = Field(default_factory=dict)
    passed: bool
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, content: Any) -> Any:  # noqa: ANN401 - unchecked JSON
        """Up to format 3 a verdict had two metrics, each a field or null, and its limit was one of PSNR."""
        if not isinstance(content, dict) or "values" in content or not {"relative_l2", "psnr"} <= content.keys():
            return cast("Any", content)
        rest = dict(cast("dict[str, Any]", content))
        values = {name: value for name in ("relative_l2", "psnr") if (value := rest.pop(name)) is not None}
        limit = rest.pop("limit", None)
        return {**rest, "values": values, "limit": {} if limit is None else {"psnr": limit}}


class Defaults(Frozen):
    """What a picture is made with unless asked otherwise: pixels, steps of a sampler that is there, and whose noise a seed is."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    steps: int = Field(ge=1)
    generator: Generator = "numpy"


class Draft(Frozen):
    """Everything that the run time knows about a model, and the receipts; `write` makes a bundle of it."""

    name: str
    recipe: str
    source: dict[str, str]
    guidance: Guidance
    defaults: Defaults
    tokenizers: dict[Name, Tokenizer] = Field(default_factory=dict, description="none of a model that reads no text")
    inputs: dict[Name, Input] = Field(default_factory=dict, description="what users feed beside the prompt")
    noise_order: Ordered = Field(
        default=(),
        description="which of a seed's draws, from 0, are taken first, by condition parts and then as the latent; of those up to "
        "the last of these, others are left out",
    )
    start_order: dict[StartsFrom, Ascending] = Field(
        default_factory=dict[StartsFrom, Ascending],
        description="the same of what starts from an image, where not as they come; others are left out",
    )
    partial_step: PartialStep = Field(
        default="dropped", description="what becomes of the step in which a strength ends, of what starts from an image"
    )
    parts: dict[Name, PartEntry]
    samplers: tuple[SamplerEntry, ...]
    process: RelativePath | None = Field(default=None, description="what adaptive samplers solve; null where there is none")
    recordings: tuple[RelativePath, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    limits: dict[Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]*\.)?[a-z]+$")], float | dict[Name, float]] = Field(
        default_factory=dict, description="the recipe's own: a floor of PSNR in dB, or limits by metric"
    )
    notes: tuple[str, ...] = ()
    low_memory: bool = Field(default=False, description="one network in memory at a time, opened anew for each picture")
    versions: dict[str, str]

    def named(self) -> set[str]:
        """Every file that the draft speaks of."""
        onnx = [file for part in self.parts.values() for graph in part.onnx.values() for file in graph.files]
        engines = [file for part in self.parts.values() for engine in part.engines.values() for file in engine.files]
        small = [entry.file for entry in (*self.samplers, *self.tokenizers.values())]
        starts = [file for entry in self.samplers for file in (entry.image, entry.handover) if file]
        evidence = [part.quantized.calibration for part in self.parts.values() if part.quantized]
        evidence += [part.lora.layers for part in self.parts.values() if part.lora]
        process = [self.process, *evidence] if self.process else evidence
        return {*onnx, *engines, *small, *starts, *process, *self.recordings}

    def with_role(self, role: Role) -> dict[str, PartEntry]:
        """Return the parts of one role by name, in alphabetical order."""
        return {name: part for name, part in sorted(self.parts.items()) if part.role == role}

    def runs(self) -> dict[str, dict[str, str]]:
        """Return the backends that the bundle can be played on, each with the backend that every part then runs on.

        That is the same one, but for parts whose only engine is of another. The one that most parts share comes first.
        """
        running = self.running()
        engines = [name for part in running.values() for name in part.engines]
        found: dict[str, dict[str, str]] = {}
        for name in sorted(set(engines), key=lambda name: (-engines.count(name), name != "onnxruntime", name)):
            chosen = {part: name if name in entry.engines else "".join(entry.engines) for part, entry in running.items()}
            if chosen not in found.values() and all(taken in self.parts[part].engines for part, taken in chosen.items()):
                found[name] = chosen
        return found

    def running(self) -> dict[str, PartEntry]:
        """Return the parts that have engines: all of them, or the whole pipelines alone where it is fused."""
        return self.with_role("pipeline") or dict(self.parts)

    def fused(self, steps: int) -> str | None:
        """Name the part that is the whole pipeline at that many steps; None where it is played step by step."""
        name = f"pipeline_{steps}"
        return name if name in self.with_role("pipeline") else None

    def compiled(self, steps: int, height: int, width: int) -> SamplerEntry:
        """Return the compiled sampler of that many steps for a size in pixels; raise UnsupportedError where there is none."""
        for size in ((height, width), (None, None)):
            for entry in self.samplers:
                if (entry.steps, entry.height, entry.width) == (steps, *size):
                    return entry
        sizes = ((entry.steps, f" at {entry.height}x{entry.width}" if entry.height else "") for entry in self.samplers)
        raise UnsupportedError(
            f"no sampler of {steps} steps for {height}x{width} in this bundle; there are: "
            f"{', '.join(f'{number}{size}' for number, size in sizes)}. "
            f"Add one with: t2iexport build RECIPE --set sampler.steps=[{steps}]"
        )

    def encoding_order(self) -> tuple[str, ...]:
        """Names of the text and condition parts, which run once a picture, each after those whose outputs it takes."""
        return wiring.order(self.parts, {*self._tokens(), *taken(self.inputs), "noise"})

    def _tokens(self) -> list[str]:
        return [name for entry in self.tokenizers.values() for name in (entry.feeds, entry.mask, entry.weights) if name]

    @model_validator(mode="after")
    def _playable(self) -> Self:
        for role in ("denoiser", "decoder"):
            if len(self.with_role(role)) != 1:
                raise ValueError(f"there must be one {role}, not {len(self.with_role(role))}")
        if len(self.with_role("encoder")) > 1:
            raise ValueError("there must be at most one encoder")
        if (self.start_order or any(sampler.image for sampler in self.samplers)) and not self.with_role("encoder"):
            raise ValueError("a sampler starts from an image, and there is no encoder")
        keys = [(sampler.steps, sampler.height, sampler.width) for sampler in self.samplers]
        if len(set(keys)) != len(keys):
            raise ValueError("two samplers are for the same steps and size")
        if self.defaults.steps not in [steps for steps, _, _ in keys]:
            raise ValueError(f"no sampler has the default number of steps, {self.defaults.steps}")
        wholes = self.with_role("pipeline")
        if wholes and set(wholes) != {f"pipeline_{steps}" for steps, _, _ in keys}:
            raise ValueError("a fused bundle must have one whole pipeline for each number of steps")
        if wholes and any(part.engines for part in self.parts.values() if part.role != "pipeline"):
            raise ValueError("a fused bundle has engines of the whole pipelines only")
        wiring.check(self.parts, self._tokens(), [scale.name for scale in self.guidance.scales], self.inputs)
        return self


class Manifest(Draft):
    """A draft with the proof of what lies beside it; `digest` is that of the manifest's own content without this key."""

    format: Literal[1, 2, 3, 4, 5] = FORMAT
    digest: Digest
    files: dict[RelativePath, File]

    @property
    def model(self) -> str:
        """SHA-256 of what a picture depends on: graphs, tokenizers, samplers, guidance. No check or rebuild changes it."""

        def content(names: Iterable[str]) -> list[str]:
            return [self.files[name].sha256 for name in names]

        graphs = {name: {key: content(onnx.files) for key, onnx in part.onnx.items()} for name, part in self.parts.items()}
        tokenizers = {name: [entry.length, entry.feeds, *content([entry.file])] for name, entry in self.tokenizers.items()}
        tables = [content(file for file in (each.file, each.image, each.handover) if file) for each in self.samplers]
        # What only later formats hold counts where it is there: a bundle that is written in a newer format stays the same model.
        usual = {"mode": self.guidance.mode, "scale": self.guidance.scale}
        told: dict[str, Any] = {"graphs": graphs, "tokenizers": tokenizers, "samplers": tables, "guidance": usual}
        tiles = {name: part.tile.model_dump() for name, part in self.parts.items() if part.tile}
        if self.guidance != Guidance.of(self.guidance.mode, self.guidance.scale):
            told["scales"] = [scale.told() for scale in self.guidance.scales]
        read_by = self.tokenizers.items()
        framed = {name: [each.before, each.after, each.lower, *filter(None, [each.empty])] for name, each in read_by}
        told |= {"framed": framed} if any(how != ["", "", False] for how in framed.values()) else {}
        masks = {name: entry.mask for name, entry in read_by if entry.mask}
        read = {name: [entry.chunks, entry.syntax] for name, entry in read_by}
        told |= {"read": read} if any(how != [1, None] for how in read.values()) else {}
        lengths = {name: entry.open.model_dump(mode="json") for name, entry in read_by if entry.open}
        told |= {name: each for name, each in (("tiles", tiles), ("masks", masks), ("lengths", lengths)) if each}
        plain = {"noise_order": list(self.noise_order), "partial_step": self.partial_step, "start_order": self.start_order}
        told |= {name: value for name, value in plain.items() if value not in ([], "dropped", {})}
        told |= {"inputs": {name: entry.counting() for name, entry in self.inputs.items()}} if self.inputs else {}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _listed(self) -> Self:
        if missing := self.named() - set(self.files):
            raise ValueError(f"not in files: {sorted(missing)}")
        return self
