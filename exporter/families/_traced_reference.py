"""A traced pipeline as diffusers runs it, fp32: what recordings and baselines ask of the source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engines.errors import UnsupportedError
from exporter.families import Family, Saw, _played, _standins, _survey
from exporter.families._facts import AskedTokens, branch_of, is_tokenizer, replayed, steering
from exporter.families._standins import Stepped
from exporter.families._survey import Leaf, Play

if TYPE_CHECKING:
    from exporter.families._facts import Survey


class TracedFamily(Family, Protocol):
    """A family that knows a survey of its pipeline."""

    survey: Survey

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Arguments of the pipeline's call beside prompts, size, steps and guidance."""
        ...

    def components(self, part: str) -> tuple[str, ...]:
        """Networks that compute in a part."""
        ...


class TracedReference:
    """The pipeline whole, its networks in memory.

    Attributes:
        pipeline: of diffusers.
        scales: none: guidance is the same at every step.
        features: none: nothing is cached between steps.

    """

    scales: Sequence[float] = ()
    features: Sequence[Tensor] = ()

    def __init__(self, family: TracedFamily, pipeline: Any) -> None:  # noqa: ANN401 - a diffusers pipeline
        self._family, self.pipeline = family, pipeline

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """Part → its networks."""
        names = {part: self._family.components(part) for part in self._family.roles}
        return {part: nn.ModuleList([getattr(self.pipeline, name) for name in own]) for part, own in names.items()}

    @property
    def calls(self) -> Mapping[str, tuple[object, str]]:
        """Part → whose method the pipeline calls for it, and its name."""
        found: dict[str, tuple[object, str]] = {}
        for part, role in self._family.roles.items():
            network = getattr(self.pipeline, self._family.components(part)[0])
            encode = next((name for name in _survey.ENCODERS if hasattr(self.pipeline, name)), "")
            found[part] = {"text": (self.pipeline, encode), "decoder": (network, "decode")}.get(role, (network, "forward"))
        return found

    def unpacked(self, kept: Tensor, shape: Sequence[int]) -> Tensor:
        """A latent (B, C, H, W) of what the pipeline keeps of it."""
        survey = self._family.survey
        return _survey.unpacked(survey.way, kept, torch.empty(tuple(shape), device="meta"))

    def tokenize(self, prompts: Sequence[str], negative: str | None) -> dict[str, np.ndarray]:
        """Token ids and masks as the pipeline's own calls make them, int64 (batch, branches, length), by input port."""
        return self._encoded(prompts, negative)[1]

    def encode(self, prompts: Sequence[str], negative: str | None) -> dict[str, np.ndarray]:
        """What the pipeline's encoding of prompts returns, float32 or int64 (batch, …), by port."""
        return self._encoded(prompts, negative)[0]

    def _encoded(self, prompts: Sequence[str], negative: str | None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        survey, count = self._family.survey, len(prompts)
        if not survey.encodings:
            return {}, {}
        play, found = Play(self.pipeline, torch.zeros, torch.full((count,), 500.0)), list[Any]()
        rows: dict[str, dict[int, np.ndarray]] = {}
        waiting = [call for encoding in survey.encodings for call in encoding.tokens]
        play.place(
            **{
                name: _survey.tokenizer(each, self._noting(name, waiting, rows))
                for name, each in self.pipeline.components.items()
                if is_tokenizer(each)
            }
        )
        method = getattr(type(play.pipeline), play.encoder)

        def encode(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the pipeline's
            found.append(method(play.pipeline, *args, **kwargs))
            if len(found) == len(survey.encodings):
                raise Stepped(None, None, {})
            return found[-1]

        play.encode_by(encode)
        shapes = self._family.recipe.shapes
        texts = {"prompt": list(prompts)} | ({"negative_prompt": [negative or ""] * count} if survey.branches == 2 else {})
        scale = _standins.OpenScale(torch.ones(count), on=survey.mode != "none")
        asked = {**self._family.arguments, **texts, **steering(self.pipeline, survey.mode, scale)}
        with contextlib.suppress(Stepped):
            play(**asked, height=shapes.height[1], width=shapes.width[1])
        values = {}
        for result, leaves in zip(found, survey.conditioning, strict=True):
            for value, leaf in zip(_survey.leaves(result, count)[0], leaves, strict=True):
                if isinstance(leaf, Leaf):
                    values[leaf.name] = _played.as_port(value, leaf).numpy().copy()
        return values, self._ports(rows, prompts, negative or "")

    def _ports(self, rows: Mapping[str, dict[int, np.ndarray]], prompts: Sequence[str], negative: str) -> dict[str, np.ndarray]:
        """Ids and masks (batch, branches, length); of a branch that the pipeline has read in another way, as the bundle does."""
        found: dict[str, np.ndarray] = {}
        for name, reading in self._family.survey.readings.items():
            real, texts = getattr(self.pipeline, reading.tokenizer), ([negative] * len(prompts), prompts)
            for port, key in ((f"{name}_ids", "input_ids"), (f"{name}_mask", "attention_mask")):
                if port not in rows:
                    continue
                branches = [rows[port].get(branch) for branch in range(2)][-self._family.survey.branches :]
                for branch, own in enumerate(branches):
                    if own is None:
                        shown = [reading.shown(text) for text in texts[branch]]
                        made = real(shown, padding="max_length", max_length=reading.length, truncation=True)
                        branches[branch] = np.asarray(made[key], np.int64)
                found[port] = np.stack([own for own in branches if own is not None], axis=1)
        return found

    def _noting(self, name: str, waiting: list[Any], rows: dict[str, dict[int, np.ndarray]]) -> Callable[..., AskedTokens]:
        """Tokenize as the pipeline asks, and note ids and masks by port and branch."""
        real = getattr(self.pipeline, name)

        def answer(texts: Sequence[str], options: Mapping[str, Any]) -> AskedTokens:
            call = waiting.pop(0)
            given = real(list(texts), **options)
            branches = [branch_of(text) for text in call.texts]
            if not call.again and None not in branches:
                each = len(texts) // len(branches)
                for index, branch in enumerate(branch for branch in branches if branch is not None):
                    own = slice(index * each, (index + 1) * each)
                    entry, reading = self._family.survey.entries[name, branch]
                    rows.setdefault(f"{entry}_ids", {})[branch] = np.asarray(given["input_ids"][own], np.int64)
                    if reading.masked:
                        rows.setdefault(f"{entry}_mask", {})[branch] = np.asarray(given["attention_mask"][own], np.int64)
            return AskedTokens(dict(given), set())

        return answer

    def call(self, conditioning: Mapping[str, np.ndarray], guidance_scale: float | None, **options: Any) -> Any:  # noqa: ANN401
        """Run the pipeline on conditioning that `encode` returned; pictures are `images` of what it returns."""
        survey, played = self._family.survey, options.pop("pipeline", self.pipeline)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in conditioning.items()}
        encoded = _played.restored(survey, tensors, torch.float32)
        count = len(next(iter(conditioning.values())))
        running = _standins.stand_in(played, _execution_device=torch.device("cpu"))
        running.__dict__["check_inputs"] = lambda *_, **__: None
        if encoded:
            running.__dict__[Play(played, torch.zeros, torch.zeros(1)).encoder] = replayed(encoded)
        asked = {**self._family.arguments, **_survey.off(), **options}
        asked |= steering(played, survey.mode, 1.0 if guidance_scale is None else guidance_scale)
        asked |= _played.prompted(played, survey, encoded, count)
        takes = _survey.arguments(played)
        return SimpleNamespace(images=_survey.image_of(running(**{name: asked[name] for name in asked if name in takes})))

    def reusing(self, depths: Sequence[int], reach: int, saw: Saw) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """Nothing: no call can be answered by outermost layers alone."""
        return contextlib.nullcontext()

    def from_image(
        self,
        pixels: np.ndarray,  # noqa: ARG002 - none is taken, as below
        anew: np.ndarray | None,  # noqa: ARG002
        strength: float | None,  # noqa: ARG002
        size: Mapping[str, int],  # noqa: ARG002
    ) -> tuple[Any, dict[str, Any]]:
        """Start from an image."""
        raise UnsupportedError(f"{self._family.survey.name} is built without an encoder of images.")

    def encode_image(self, image: np.ndarray, noise: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """Encode an image."""
        raise UnsupportedError(f"{self._family.survey.name} is built without an encoder of images.")

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """What the pipeline makes of a latent behind its last step: float32 (B, height, width, 3) in [0, 1]."""
        part = self._family.part("vae_decoder", "fp32")
        with torch.no_grad():
            return np.concatenate([part.module(torch.from_numpy(row[None])).numpy() for row in latent])
