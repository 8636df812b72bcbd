"""A reward's folder: a pair of encoders as one network from a picture and a prompt to a number, on engines without torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import numpy as np
from PIL import Image

from engines import plugins
from engines.bundle import measure
from engines.disk import require_folder, writing
from engines.errors import ParityError, UnsupportedError
from engines.inputs import Input, Preprocessing
from engines.manifest import EngineFiles, Tokenizer
from engines.reward import IDS, IMAGE, LIMIT, MANIFEST, REWARD, Reward, RewardManifest
from engines.signature import Port, Range, Signature
from exporter.models import locate
from exporter.models.dual_encoder import DualEncoder

if TYPE_CHECKING:
    from torch import nn

    from engines.backends import Backend

#: Pictures that an engine takes at once.
_BATCH = Range(min=1, typical=4, max=16)
#: How far an engine's numbers, hundredths of a cosine, may be from the source's.
_LIMIT = 0.1
#: How many folders above a reward's its encoders are looked for in.
_ABOVE = 3
_TEXTS = ("a red circle", "a photo of an astronaut riding a horse, in the style of a woodcut", "", "two cats on a sofa")


def make(model: str, out: Path, targets: Sequence[str], *, processor: str | None, revision: str | None) -> RewardManifest:
    """Make a reward of a pair of encoders as CLIP's, with an engine of each target; the number is 100 times the cosine.

    Args:
        model: a folder or a hub id.
        out: the reward's folder; one that lies there, with nothing beside it, is replaced.
        targets: backends.
        processor: where tokenizer and image processor are, if not with the model.
        revision: of the model, on the hub.

    Raises:
        RecipeError: there is nothing under a name.
        UnsupportedError: it is no pair of encoders, or prepares its inputs in a way that the run time does not know; or `out`
            holds something else than a reward.
        BundleError: the reward that lies there is damaged.
        ParityError: an engine's numbers are not the source's.
        MissingDependency: a target's library is not installed.

    """
    backends = {name: cast("Backend", plugins.load("backends", name)()) for name in targets}
    for backend in backends.values():
        backend.version  # noqa: B018 - tells at once that its library is missing
    _require_place(out)
    encoder = DualEncoder.find(model, processor, revision, Path.cwd())
    require_folder(out.parent)
    partial = out.with_name(f".{out.name}.{uuid4().hex[:8]}.partial")
    try:
        with writing(out.parent, f"writing {out}"):
            partial.mkdir()
            named = {"source": model, "processor": processor, "revision": revision, "digest": encoder.digest}
            about = _fill(partial, encoder, out.name, {key: word for key, word in named.items() if word}, backends)
            _put(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return about


def encoders(about: RewardManifest, folder: Path) -> DualEncoder:
    """The encoders that a reward's folder was made of, found by the name that it keeps of them.

    A path is looked for in the working directory and in the folders above the reward's.

    Raises:
        RecipeError: there is nothing under that name.
        UnsupportedError: others are.

    """
    named = about.source
    near = (Path.cwd(), *folder.resolve().parents[:_ABOVE])
    root = next((place for place in near if locate.holds_model(place / named["source"])), Path.cwd())
    found = DualEncoder.find(named["source"], named.get("processor"), named.get("revision"), root)
    if found.digest != named["digest"]:
        raise UnsupportedError(
            f"{found.folder} holds other encoders than those that {folder} was made of. Make the reward again, or bring "
            "them back."
        )
    return found


def _require_place(out: Path) -> None:
    """Raise UnsupportedError where anything but a reward would be replaced: a folder is its owner's too."""
    if not os.path.lexists(out):
        return
    if not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UnsupportedError(f"{out} is no reward's folder, so it is not replaced. Remove it, or name another.")
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_symlink() or not path.is_dir())
    listed = {MANIFEST, *RewardManifest.read(out / MANIFEST, LIMIT).files} if files else set[str]()
    if others := [name for name in files if name not in listed]:
        raise UnsupportedError(
            f"{out / others[0]} is not of the reward that lies there, so the folder is not replaced. Move it away, or "
            "name another."
        )


def _put(partial: Path, out: Path) -> None:
    """Put a finished folder in its place; what was there goes when the new one stands, and comes back where it does not."""
    aside = out.with_name(f"{partial.name}.old")
    if not out.exists():
        partial.replace(out)
        return
    out.replace(aside)
    try:
        partial.replace(out)
    except BaseException:
        aside.replace(out)
        raise
    shutil.rmtree(aside)


def _fill(folder: Path, encoder: DualEncoder, name: str, source: dict[str, str], backends: dict[str, Backend]) -> RewardManifest:
    from exporter.onnx.export import export, save  # noqa: PLC0415 - torch
    from exporter.part import Part  # noqa: PLC0415 - as above

    network, prepare, _ = encoder.opened
    image, (entry, spelled) = _image(prepare.image_processor, encoder), _tokenizer(prepare.tokenizer, network.config)
    (folder / entry.file).write_text(spelled, encoding="utf-8")
    ids = Port(name=IDS, dtype="int64", shape=("batch", entry.length))
    signature = Signature(inputs=(image.port(IMAGE), ids), outputs=(Port(name=REWARD, shape=("batch",)),), dims={"batch": _BATCH})
    part = Part(REWARD, "text", cosine(network.cpu()), signature)
    engines: dict[str, EngineFiles] = {}
    for target, backend in backends.items():
        graph, built = folder / "onnx" / f"opset{backend.opset}" / f"{REWARD}.onnx", folder / "engines" / target
        if not graph.exists():
            graph.parent.mkdir(parents=True)
            save(export(part, backend.opset, processor=all(each.runs_on_cpu for each in backends.values())), graph)
        built.mkdir(parents=True)
        files = tuple(file.relative_to(folder).as_posix() for file in backend.build(graph, signature, built))
        options = backend.model_dump(mode="json")
        engines[target] = EngineFiles(options=options, opset=backend.opset, files=files, version=backend.version)
    files = {path.relative_to(folder).as_posix(): measure(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    about = RewardManifest(
        name=name, source=source, image=image, tokenizer=entry, signature=signature, engines=engines, off=0, files=files
    )
    _write(folder, about)
    about = about.model_copy(update={"off": max(_off(folder, target, encoder) for target in engines)})
    _write(folder, about)
    return about


def _write(folder: Path, about: RewardManifest) -> None:
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(about.model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cosine(network: Any) -> nn.Module:  # noqa: ANN401 - transformers'
    """A pair of encoders as a reward's network: prepared pictures (batch, height, width, 3), ids (batch, length) → (batch,)."""
    from torch import Tensor, nn  # noqa: PLC0415 - as above

    class Cosine(nn.Module):
        """100 times the cosine of the directions of a picture and a text."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            seen = self.network.get_image_features(pixel_values=image.permute(0, 3, 1, 2)).pooler_output
            read = self.network.get_text_features(input_ids=ids).pooler_output
            return 100 * nn.functional.cosine_similarity(seen, read)

    return Cosine().eval()


def _image(processor: Any, encoder: DualEncoder) -> Input:  # noqa: ANN401 - transformers'
    """How pictures are prepared, of the image processor's own words."""
    size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    cropped = bool(getattr(processor, "do_center_crop", False))
    side = size.get("shortest_edge")
    if cropped and side and crop == {"height": side, "width": side}:
        resize, height, width = "crop", side, side
    elif not cropped and size.keys() == {"height", "width"}:
        resize, height, width = "stretch", size["height"], size["width"]
    else:
        raise UnsupportedError(
            f"{encoder.processor} prepares pictures by size {size} and crop {crop if cropped else 'none'}. Those of a reward are "
            "resized to one size, or by the shorter side to a square that is cropped from the middle."
        )
    resample = Image.Resampling(processor.resample).name.lower()
    mean, std = (tuple(float(each) for each in numbers) for numbers in (processor.image_mean, processor.image_std))
    prepared = Preprocessing.model_validate({"resize": resize, "resample": resample, "mean": mean, "std": std})
    return Input(kind="image", shape=("batch", height, width, 3), preprocessing=prepared)


def _tokenizer(source: Any, config: Any) -> tuple[Tokenizer, str]:  # noqa: ANN401 - transformers'
    """What reads the prompt, as the run time has it, and the text of its file."""
    length = min(int(source.model_max_length), int(config.text_config.max_position_embeddings))
    own = type(source.backend_tokenizer).from_str(source.backend_tokenizer.to_str())
    own.no_truncation()
    own.enable_padding(length=length, pad_id=source.pad_token_id, pad_token=source.pad_token)
    return Tokenizer(file="tokenizer.json", length=length, feeds=IDS), own.to_str()


def _off(folder: Path, target: str, encoder: DualEncoder) -> float:
    """How far an engine's numbers are from the source's, at most, over pictures of several shapes.

    Raises:
        ParityError: that is too far.

    """
    dice = np.random.default_rng(0)
    sides = ((64, 64), (200, 150), (90, 333), (512, 512))
    pictures = []
    for height, width in sides:  # of coarse patches, since fine noise is grey to any network
        patches = dice.integers(0, 256, (height // 16, width // 16, 3)).astype(np.uint8)
        pictures.append(Image.fromarray(patches).resize((width, height)))
    seen = np.concatenate([encoder.pictures(np.array(each)[None]) for each in pictures])
    wanted = 100 * (seen * encoder.texts(_TEXTS)).sum(1)
    with Reward.open(folder, target) as reward:
        off = float(np.abs(reward.scores(pictures, _TEXTS) - wanted).max())
    if not off <= _LIMIT:
        raise ParityError(
            f"{target}'s numbers are up to {off:.3g} from the source's, and {_LIMIT} is allowed; nothing was written."
        )
    return off
