"""LoRAs of a request → what a bundle's networks take: A and B of every layer, side by side in rank, and scales by image."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.lora import spelling, tensors
from engines.lora.choice import LoraChoice
from engines.lora.factors import Pair, UnfitError, factors
from engines.lora.layers import LoraLayers, listed, rounded
from engines.lora.stacking import Arrays, Factors, LoraTarget, scaled, stacked
from engines.lora.strength import config_of, said, strength

_REMEDY = "Build the bundle again with"


#: Network → its inputs by port.
BoundLoras = Mapping[str, Arrays]


@dataclass(frozen=True)
class ReadLora:
    """A file's factors: network → layer's name → A and B."""

    sha256: str
    networks: Mapping[str, Factors]


class Adapters:
    """A bundle's networks that take LoRAs, and the files that were read for them lately.

    Arrays are not writeable, and of the same files in the same order they are the same objects: engines see that.

    Raises:
        BundleError: a file of the bundle that lists layers is damaged.

    """

    def __init__(self, bundle: Bundle) -> None:
        parts = bundle.manifest.parts
        self._targets = {
            name: LoraTarget.of(name, entry.lora.limits, LoraLayers.load(bundle.path(entry.lora.layers)))
            for name, entry in parts.items()
            if entry.lora
        }
        self._others = [name for name, entry in parts.items() if not entry.lora and entry.role in {"text", "denoiser"}]
        self._read: dict[tuple[Path, int, int], ReadLora] = {}
        self._bound: tuple[tuple[str, ...], dict[str, Arrays]] = ((), {})
        self._turn = threading.RLock()

    @property
    def slots(self) -> int:
        """LoRAs at once."""
        return min((target.limits.slots for target in self._targets.values()), default=0)

    def facts(self, chosen: Sequence[LoraChoice], image: int) -> dict[str, str]:
        """What an image says of its LoRAs, in order: scale, SHA-256 and name of each file."""
        own = [(choice.scales[image], choice.file) for choice in chosen if choice.scales[image]]
        return {
            f"lora_{number}": f"{scale!r} {self._opened(file).sha256} {file.name}" for number, (scale, file) in enumerate(own, 1)
        }

    def bind(self, chosen: Sequence[LoraChoice]) -> BoundLoras:
        """Network → its inputs by port; empty for networks that no LoRA changes, which then rest.

        Raises:
            UnsupportedError: a file is damaged, or for another model, or larger than the bundle takes; says what would fit.

        """
        active = [choice for choice in chosen if any(choice.scales)]
        if not active:
            return {}
        if not self._targets:
            raise UnsupportedError(
                f"this bundle was built without LoRAs at run time. {_REMEDY} components.unet.lora: {{max_rank: 64, slots: 2}}, "
                "or fuse them: model.loras."
            )
        if len(active) > self.slots:
            raise UnsupportedError(
                f"{len(active)} LoRAs are asked for at once, and this bundle has {self.slots} "
                f"slot{'s' * (self.slots > 1)}. Leave out {listed([each.file.name for each in active[self.slots :]])}, or build "
                f"the bundle again with lora.slots: {len(active)}."
            )
        read = [self._opened(choice.file) for choice in active]
        key = tuple(each.sha256 for each in read)
        with self._turn:
            if self._bound[0] != key:
                self._bound = key, {name: stacked(self._targets[name], own) for name, own in _by_network(read).items()}
            arrays = self._bound[1]
        scales = [choice.scales for choice in active]
        return {name: arrays[name] | scaled(self._targets[name], own, scales) for name, own in _by_network(read).items()}

    def _opened(self, file: Path) -> ReadLora:
        try:
            status = file.stat()
        except OSError as error:
            raise UnsupportedError(f"{file} cannot be read: {error.strerror}.\n  Name a .safetensors file.") from error
        key = file.resolve(), status.st_size, status.st_mtime_ns
        with self._turn:
            found = self._read.pop(key, None) or self._load(file)
            self._read[key] = found
            while len(self._read) > 2 * self.slots:
                del self._read[next(iter(self._read))]
        return found

    def _load(self, file: Path) -> ReadLora:
        """Every weight of a file must find its place.

        Raises:
            UnsupportedError: one does not; says which, and what would take it.

        """
        opened = tensors.opened(file)
        config = config_of(file, opened.metadata)
        found: dict[str, dict[str, Arrays]] = {}
        left: list[str] = []
        for name in sorted(opened.shapes):
            if name.startswith(spelling.BUNDLED):
                raise UnsupportedError(
                    f"{file} brings along the word {name.split('.')[1]}, which only a build can teach.\n"
                    "  Fuse it: model.loras, or build with its word (model.embeddings) and take the file without."
                )
            owner, place = spelling.owner(name), spelling.split(name)
            if owner in self._others and not spelling.other_format([name]):
                raise UnsupportedError(
                    f"{file} changes {owner}, which this bundle has without LoRAs at run time ({name}).\n"
                    f"  {_REMEDY} components.{owner}.lora, fuse the file (model.loras), or take one that changes "
                    f"{listed(list(self._targets))} alone."
                )
            layer = self._targets[owner].spelled.get(place[0]) if owner in self._targets and place else None
            if layer is not None and not layer.used:
                continue
            if layer is None or place is None or place[1] in found.get(owner, {}).get(layer.name, {}):
                left.append(name)
            else:
                found.setdefault(owner, {}).setdefault(layer.name, {})[place[1]] = opened[name]
        _refuse_left(file, left)
        networks = {owner: self._factored(file, owner, layers, config) for owner, layers in found.items()}
        with file.open("rb") as stream:
            return ReadLora(hashlib.file_digest(stream, "sha256").hexdigest(), networks)

    def _factored(self, file: Path, owner: str, layers: Mapping[str, Arrays], config: str) -> dict[str, Pair]:
        target, pairs = self._targets[owner], dict[str, Pair]()
        known = target.layers
        if out := [name for name in layers if known[name].index is None]:
            raise UnsupportedError(
                f"{file} changes layers of {owner} that the build left out: {listed(out)}.\n"
                f"  {_REMEDY} components.{owner}.lora.conv_rank above 0 and lora.layers that name them, or fuse the file: "
                "model.loras."
            )
        for name, pieces in layers.items():
            where = f"{file}: {owner}.{name}"
            if bad := [piece for piece, array in pieces.items() if not np.isfinite(array).all()]:
                raise UnsupportedError(f"{where} has NaN or infinite values ({bad[0]}).\n  Download or copy it again.")
            rank = len(pieces["down"]) if "down" in pieces and pieces["down"].ndim else 0
            if said(config, owner).get("use_dora") and "magnitude" not in pieces:
                raise UnsupportedError(
                    f"{where} has no lora_magnitude_vector, and its config says DoRA.\n  Fuse it: model.loras."
                )
            try:
                pairs[name] = factors(pieces, known[name].shape, strength(config, owner, name, rank))
            except UnfitError as error:
                other = "" if "only be fused" in str(error) else "\n  The LoRA is for another model."
                raise UnsupportedError(f"{where} {error}.{other}") from error
            convolution = known[name].form == "convolution"
            field, most = ("conv_rank", target.limits.conv_rank) if convolution else ("max_rank", target.limits.max_rank)
            if (own := len(pairs[name][0])) > most:
                raise UnsupportedError(
                    f"{where} has rank {own}, and this bundle takes up to {most}.\n"
                    f"  {_REMEDY} components.{owner}.lora.{field}: {rounded(own)}, fuse the file (model.loras), or resize it."
                )
        return pairs


def _by_network(read: Sequence[ReadLora]) -> dict[str, list[Factors]]:
    """Network that any of the files changes → what each of them has of it."""
    return {
        name: [each.networks.get(name, {}) for each in read]
        for name in dict.fromkeys(name for each in read for name in each.networks)
    }


def _refuse_left(file: Path, names: Sequence[str]) -> None:
    """Raise UnsupportedError where weights of a LoRA have no place in the networks."""
    if not names:
        return
    if called := spelling.left_over(names):
        raise UnsupportedError(
            f"{file} is in a format that is not read, {called}: {listed(names)}.\n"
            "  At run time LoRA, LoCon (Tucker too), LoHa and LoKr with small factors are."
        )
    raise UnsupportedError(
        f"{file}: {len(names)} weights have no place in the model: {listed(names)}.\n"
        "  The LoRA is for another model, or its trainer spells the layers in a way that is not known here."
    )
