"""What a page must know of a bundle, and which bundles no page draws."""

from __future__ import annotations

from typing import Any

from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.images import provenance
from engines.manifest import PartEntry
from engines.sizes import Sizes
from engines.strict import read_bytes, read_json
from engines.web.clip import require_clip

#: Bytes of weights that WebAssembly, whose memory ends at 4 GiB, has room for beside what it computes.
_ROOM = 3 * 2**30
#: Bytes of a tokenizer's file.
_LIMIT = 64 * 2**20
_INSTEAD = "Draw with it by: t2iexport generate"


def described(bundle: Bundle) -> dict[str, Any]:
    """Content of a site's `model.json`, but for where its files lie: `pipeline.js` reads it.

    Raises:
        UnsupportedError: the bundle asks for something that a page does not do; the text names it.
        BundleError: a file is damaged.

    """
    about = bundle.manifest
    _refuse(bundle)
    (denoiser,), (decoder,) = about.with_role("denoiser"), about.with_role("decoder")
    parts = {name: part for name, part in about.running().items() if part.role != "encoder"}
    pipelines = {
        str(entry.steps): {"name": name, "draws": noise.shape[1]}
        for entry in about.samplers
        if (name := about.fused(entry.steps)) and (noise := about.parts[name].signature.port("noise"))
    }
    return {
        "name": about.name,
        "facts": provenance.facts(about, ""),
        "defaults": {"height": about.defaults.height, "width": about.defaults.width, "steps": about.defaults.steps},
        "branches": about.guidance.branches,
        "scales": [scale.told() for scale in about.guidance.scales],
        "sizes": _sizes(bundle),
        "tokenizers": [entry.model_dump(mode="json") for _, entry in sorted(about.tokenizers.items())],
        "parts": {name: _part(name, part) for name, part in parts.items()},
        "order": list(about.encoding_order()),
        "denoiser": denoiser,
        "shallow": next(iter(about.with_role("shallow")), None),
        "output": about.parts[denoiser].signature.outputs[0].name,
        "decoder": decoder,
        "samplers": [entry.model_dump(mode="json", include={"steps", "height", "width", "file"}) for entry in about.samplers],
        "pipelines": pipelines,
    }


def _part(name: str, part: PartEntry) -> dict[str, Any]:
    """What a network takes, the shapes of zeros for what a page does not feed, and its files, the graph first."""
    low, _, step = part.signature.lengths(part.signature.inputs[0].shape[0])
    if low > 1 or step > 1:
        raise UnsupportedError(f"{name} takes {low} pictures at once, and a page draws one. Build it with batch: [1, 1, 1].")
    least = part.signature.extent("min")
    resting = {port.name: list(part.signature.shape(port, least)) for port in part.signature.inputs if port.optional}
    return {"inputs": [port.name for port in part.signature.inputs], "resting": resting, "files": _files(part)}


def _files(part: PartEntry) -> list[str]:
    return list(part.onnx[str(max(map(int, part.onnx)))].files)


def _sizes(bundle: Bundle) -> dict[str, Any]:
    """Pixels per cell, channels of the latent, and per axis the smallest and largest side and the step between, in pixels.

    Of a decoder that works tile by tile a page makes what fits one tile.
    """
    found, defaults = Sizes(bundle), bundle.manifest.defaults
    ranges = list(found.ranges)
    (decoder,) = bundle.manifest.with_role("decoder").values()
    if decoder.tile:
        tops = [decoder.tile.size * factor for factor in found.factors]
        if max(tops) < max(defaults.height, defaults.width):
            raise UnsupportedError(
                f"this bundle decodes {defaults.width}x{defaults.height} pixels in tiles, and a page decodes at once. Build it "
                "without `tile` of vae_decoder."
            )
        ranges = [(low, top // step * step, step) for (low, _, step), top in zip(ranges, tops, strict=True)]
    channels = found.latent(1, defaults.height, defaults.width)[1]
    return {"factors": found.factors, "channels": channels, "ranges": list(map(list, ranges))}


def _refuse(bundle: Bundle) -> None:
    about, running = bundle.manifest, bundle.manifest.running()
    kinds = {entry.kind for entry in about.samplers if entry.kind != "table"}
    compel = [name for name, entry in about.tokenizers.items() if entry.syntax == "compel"]
    lengths = [name for name, entry in about.tokenizers.items() if entry.open]
    bf16 = [name for name, part in running.items() if part.precision == "bf16"]
    problems = [f"it takes the input {name}, and a page has no field for it" for name in about.inputs]
    problems += [f"a sampler of it is of the kind {kind}" for kind in sorted(kinds)]
    problems += [f"{name} reads weights as compel writes them, and a page only those of a1111" for name in compel]
    problems += [f"{name} reads texts as long as they are, and a page those of one length" for name in lengths]
    problems += [f"{name} computes in bf16, for which browsers have no kernels" for name in bf16]
    if any(scale.perturbs for scale in about.guidance.scales) and not about.with_role("pipeline"):
        problems.append(
            "its guidance has a branch of its own, which a page draws in one graph alone: build it with pipeline: fused"
        )
    if about.defaults.generator != "numpy":
        problems.append(f"its seeds are those of {about.defaults.generator}, and a page has numpy's")
    size = sum(about.files[file].size for file in {file for part in running.values() for file in _files(part)})
    if size > _ROOM:
        room = f"a browser has room for {_ROOM / 1e9:.1f}"
        problems.append(f"its networks are {size / 1e9:.1f} GB, and {room}; fp16 or int8 make them smaller")
    if problems:
        raise UnsupportedError(f"no page can draw with {bundle.folder}: {'; '.join(problems)}. {_INSTEAD}")
    for name, entry in about.tokenizers.items():
        path = bundle.path(entry.file)
        require_clip(read_json(read_bytes(path, _LIMIT), path), name)
