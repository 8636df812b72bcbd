"""A reward's folder: one network from a picture and a prompt to a number, on engines without torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import numpy as np
from PIL import Image

from engines import plugins
from engines.bundle import measure
from engines.disk import require_folder, writing
from engines.errors import ParityError, UnsupportedError
from engines.manifest import EngineFiles
from engines.reward import IMAGE, LIMIT, MANIFEST, REWARD, Reward, RewardManifest
from engines.signature import Port, Range, Signature
from exporter import reward

if TYPE_CHECKING:
    from engines.backends import Backend
    from exporter.reward import RewardSource

#: Pictures that an engine takes at once.
_BATCH = Range(min=1, typical=4, max=16)
_TEXTS = ("a red circle", "a photo of an astronaut riding a horse, in the style of a woodcut", "", "two cats on a sofa")


def make(
    model: str, out: Path, targets: Sequence[str], *, processor: str | None, revision: str | None
) -> tuple[RewardManifest, str]:
    """Make a reward of a pair of encoders as CLIP's, or of an ImageReward, with an engine of each target.

    Args:
        model: a folder, a hub id, or an ImageReward's file.
        out: the reward's folder; one that lies there, with nothing beside it, is replaced.
        targets: backends.
        processor: where tokenizer and image processor are, if not with the model.
        revision: of the model, on the hub.

    Returns:
        What the folder says of itself, and the unit of its numbers in words.

    Raises:
        RecipeError: there is nothing under a name.
        UnsupportedError: it is neither, or prepares its inputs in a way that the run time does not know; or `out` holds
            something else than a reward.
        BundleError: the reward that lies there is damaged.
        ParityError: an engine's numbers are not the source's.
        MissingDependency: a target's library is not installed.

    """
    backends = {name: cast("Backend", plugins.load("backends", name)()) for name in targets}
    for backend in backends.values():
        backend.version  # noqa: B018 - tells at once that its library is missing
    _require_place(out)
    source = reward.find(model, processor, revision, Path.cwd())
    require_folder(out.parent)
    partial = out.with_name(f".{out.name}.{uuid4().hex[:8]}.partial")
    try:
        with writing(out.parent, f"writing {out}"):
            partial.mkdir()
            named = {"source": model, "processor": processor, "revision": revision, "digest": source.digest}
            about = _fill(partial, source, out.name, {key: word for key, word in named.items() if word}, backends)
            _put(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return about, source.unit


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


def _fill(folder: Path, source: RewardSource, name: str, named: dict[str, str], backends: dict[str, Backend]) -> RewardManifest:
    from exporter.onnx.export import export, save  # noqa: PLC0415 - torch
    from exporter.part import Part  # noqa: PLC0415 - as above

    image, (entry, spelled) = source.image, source.tokenizer()
    (folder / entry.file).write_text(spelled, encoding="utf-8")
    texts = (Port(name=port, dtype="int64", shape=("batch", entry.length)) for port in (entry.feeds, entry.mask) if port)
    outputs = (Port(name=REWARD, shape=("batch",)),)
    signature = Signature(inputs=(image.port(IMAGE), *texts), outputs=outputs, dims={"batch": _BATCH})
    part = Part(REWARD, "text", source.network().cpu(), signature)
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
        name=name, source=named, image=image, tokenizer=entry, signature=signature, engines=engines, off=0, files=files
    )
    _write(folder, about)
    about = about.model_copy(update={"off": max(_off(folder, target, source) for target in engines)})
    _write(folder, about)
    return about


def _write(folder: Path, about: RewardManifest) -> None:
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(about.model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _off(folder: Path, target: str, source: RewardSource) -> float:
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
    source.network().to(source.device)
    wanted = np.concatenate([source.scores(np.array(each)[None], [text]) for each, text in zip(pictures, _TEXTS, strict=True)])
    with Reward.open(folder, target) as judge:
        off = float(np.abs(judge.scores(pictures, _TEXTS) - wanted).max())
    if not off <= source.limit:
        raise ParityError(
            f"{target}'s numbers are up to {off:.3g} from the source's, and {source.limit} is allowed; nothing was written."
        )
    return off
