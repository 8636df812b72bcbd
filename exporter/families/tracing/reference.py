"""A traced pipeline as diffusers runs it, fp32: what recordings and baselines ask of the source."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engines.errors import UnsupportedError
from exporter.families import Saw
from exporter.families.tracing import played_parts, starts, whole_numbers
from exporter.families.tracing.condition_values import condition_values
from exporter.families.tracing.following import dry_run, guiders, own_start, standins
from exporter.families.tracing.following.dry_run import Leaf, Play
from exporter.families.tracing.following.open_scale import OpenScale
from exporter.families.tracing.following.own_texts import without_padding
from exporter.families.tracing.following.standins import Stepped
from exporter.families.tracing.pictures import image_arguments, own_noise
from exporter.families.tracing.pipelines import siblings, two_stages
from exporter.families.tracing.pipelines.call import as_taken
from exporter.families.tracing.pipelines.scales import steering
from exporter.families.tracing.steps import cut_answers
from exporter.families.tracing.steps.cached_steps import cached
from exporter.families.tracing.steps.own_grid import own_grid
from exporter.families.tracing.texts import text_processors
from exporter.families.tracing.texts.readings import AskedTokens, branch_of

if TYPE_CHECKING:
    from engines.manifest import StartsFrom
    from exporter.families.tracing.facts import Survey
    from exporter.families.tracing.starts import Start
    from exporter.families.tracing.steps.crossings import Conditions


#: What users feed beside prompts, by input.
Fed = Mapping[str, np.ndarray]


class TracedFamily(cut_answers.SearchedFamily, Protocol):
    """A family that knows a survey of its pipeline."""

    survey: Survey

    @property
    def conditions(self) -> Conditions:
        """What of a step is made of pictures alone."""
        ...

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Arguments of the pipeline's call beside prompts, size, steps and guidance."""
        ...

    @property
    def starts(self) -> Mapping[StartsFrom, Start]:
        """How pipelines start from an `image`, and within a `mask`."""
        ...

    def components(self, part: str) -> tuple[str, ...]:
        """Networks that compute in a part."""
        ...


class TracedReference:
    """The pipeline whole, its networks in memory.

    Attributes:
        pipeline: of diffusers.
        scales: none: guidance is the same at every step; nor `pag_scales`.
        features: deep features that the steps of the last `call` left or were given, (branches*B, h, w, C); empty uncached.

    """

    scales: Sequence[float] = ()
    pag_scales: Sequence[float] = ()

    def __init__(self, family: TracedFamily, pipeline: Any) -> None:  # noqa: ANN401 - a diffusers pipeline
        self._family, self.pipeline = family, pipeline
        self.features: Sequence[Tensor] = ()
        self._noted: cut_answers.NotedSteps | None = None
        self._started: tuple[Any, Start] | None = None  # the pipeline of the last run, where that started from a picture

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """Part → its networks."""
        names = {part: self._family.components(part) for part, role in self._family.roles.items() if role != "shallow"}
        return {part: nn.ModuleList([getattr(self.pipeline, name) for name in own]) for part, own in names.items()}

    @property
    def calls(self) -> Mapping[str, tuple[object, str]]:
        """Part → whose method the pipeline calls for it, and its name."""
        found: dict[str, tuple[object, str]] = {}
        for part, role in self._family.roles.items():
            networks = self._family.components(part)
            if not networks or role == "shallow":  # of a decoder that only scales; and a cut one is not called by itself
                continue
            network = getattr(self.pipeline, networks[0])
            encode = next((name for name in dry_run.ENCODERS if hasattr(self.pipeline, name)), "")
            owners = {"text": (self.pipeline, encode), "decoder": (network, "decode"), "encoder": (network, "encode")}
            found[part] = owners.get(role, (network, "forward"))
        return found

    def unpacked(self, kept: Tensor, shape: Sequence[int]) -> Tensor:
        """A latent (B, C, H, W) of what the pipeline keeps of it."""
        survey = self._family.survey
        return dry_run.unpacked(survey.way, kept, torch.empty(tuple(shape), device="meta"))

    def tokenize(self, prompts: Sequence[str], negative: str | None, fed: Fed | None = None) -> dict[str, np.ndarray]:
        """Token ids and masks as the pipeline's own calls make them, int64 (batch, branches, length), by input port."""
        return self._encoded(prompts, negative, fed or {})[1]

    def encode(self, prompts: Sequence[str], negative: str | None, fed: Fed | None = None) -> dict[str, np.ndarray]:
        """What the pipeline's encoding of prompts returns, float32 or int64 (batch, …), by port.

        `fed`: noise of a first stage that is sampled there, float32 (batch, draws, …), and pictures that the text encoder sees,
        uint8 (batch, height, width, channels), by input.
        """
        return self._encoded(prompts, negative, fed or {})[0]

    def _encoded(
        self, prompts: Sequence[str], negative: str | None, fed: Fed
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """One prompt after the other, since some pipelines hand several to their tokenizer at once, and some do not."""
        own = [{name: each[row : row + 1] for name, each in fed.items()} for row in range(len(prompts))]
        rows = [self._encoded_alone([prompt], negative, each) for prompt, each in zip(prompts, own, strict=True)]
        values, ports = ({name: np.concatenate([row[side][name] for row in rows]) for name in rows[0][side]} for side in (0, 1))
        return values, ports

    def _encoded_alone(
        self, prompts: Sequence[str], negative: str | None, fed: Fed
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        survey, count = self._family.survey, len(prompts)
        if not survey.encodings:
            return {}, {}
        play, found = Play(self.pipeline, torch.zeros, torch.full((count,), 500.0)), list[Any]()
        rows: dict[str, dict[int, np.ndarray]] = {}
        given = negative or "", prompts[0]
        unread = {branch for branch in survey.empties if not given[branch]}
        calls = [call for encoding in survey.encodings for call in encoding.tokens]
        waiting = [call for call in calls if not unread.intersection(map(branch_of, call.texts))]
        play.place(
            **{
                name: text_processors.answering(each, self._noting(name, waiting, rows))
                for name, each in text_processors.of(self.pipeline).items()
            }
        )
        noise = fed.get(two_stages.NOISE)
        play.place(**two_stages.answered(None if noise is None else torch.from_numpy(noise.copy())), **self._unseen())
        method = getattr(type(play.pipeline), play.encoder)

        def encode(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the pipeline's
            found.append(method(play.pipeline, *args, **kwargs))
            if len(found) == len(survey.encodings):
                raise Stepped(None, None, {})
            return found[-1]

        play.encode_by(encode)
        shapes = self._family.recipe.shapes
        height, width = shapes.height[1], shapes.width[1]
        texts = {"prompt": survey.texts(prompts)}
        texts |= {"negative_prompt": survey.texts([negative or ""] * count)} if survey.branches == 2 else {}
        scale = OpenScale(torch.ones(count), on=survey.mode != "none")
        asked = {**self._family.arguments, **texts, **steering(self.pipeline, survey.mode, scale)}
        pictures = {name: image_arguments.pil(fed[name][0]) for name in survey.seen}
        shown = survey.shown(count, height, width) | survey.called_by(pictures)
        with contextlib.suppress(Stepped):
            play(**asked, **shown, height=height, width=width)
        values = {}
        for result, leaves in zip(found, survey.conditioning, strict=True):
            for value, leaf in zip(without_padding(dry_run.leaves(result, count)[0], leaves), leaves, strict=True):
                if isinstance(leaf, Leaf):
                    values[leaf.name] = played_parts.as_port(value, leaf).numpy().copy()
        return values, self._ports(rows, prompts, negative or "")

    def _unseen(self) -> dict[str, Any]:
        """What takes pictures as prepared, which a pipeline may prepare before it reads prompts; nothing where texts see them."""
        return image_arguments.taking(self.pipeline, {}) if self._family.survey.pictures and not self._family.survey.seen else {}

    @functools.cached_property
    def _alone(self) -> Mapping[str, int]:
        """Of conditioning that has all branches in one tensor, which of them the pipeline encodes without guidance."""
        survey, found = self._family.survey, list[Any]()
        several = {
            leaf.name: leaf.times for each in survey.conditioning for leaf in each if isinstance(leaf, Leaf) and leaf.times > 1
        }
        if not several:
            return {}
        play = Play(self.pipeline, torch.zeros, torch.full((1,), 500.0))
        play.place(**self._unseen())
        method = getattr(type(play.pipeline), play.encoder)

        def encode(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the pipeline's
            found.append(method(play.pipeline, *args, **kwargs))
            if len(found) == len(survey.encodings):
                raise Stepped(None, None, {})
            return found[-1]

        play.encode_by(encode)
        shapes = self._family.recipe.shapes
        height, width = shapes.height[1], shapes.width[1]
        asked = {**self._family.arguments, **survey.shown(1, height, width), "height": height, "width": width}
        asked |= steering(self.pipeline, survey.mode, OpenScale(torch.ones(1), on=False))
        with contextlib.suppress(Stepped):
            play(prompt=["a"], negative_prompt=["b"], **asked)
        both, rows = self.encode(["a"], "b"), dict[str, np.ndarray]()
        for leaves, own in zip(survey.conditioning, found, strict=True):
            alone = zip(leaves, dry_run.leaves(own, 1)[0], strict=True)
            rows |= {leaf.name: value[0].numpy() for leaf, value in alone if isinstance(leaf, Leaf) and leaf.name in several}

        def distance(name: str, row: int) -> float:
            return float(np.abs(both[name][0, row] - rows[name]).max())

        return {name: min(range(several[name]), key=functools.partial(distance, name)) for name in rows}

    def _ports(self, rows: Mapping[str, dict[int, np.ndarray]], prompts: Sequence[str], negative: str) -> dict[str, np.ndarray]:
        """Ids and masks (batch, branches, length); of a branch that the pipeline has read in another way, as the bundle does."""
        found: dict[str, np.ndarray] = {}
        for name, reading in self._family.survey.readings.items():
            real, texts = (
                text_processors.tokenizer(getattr(self.pipeline, reading.tokenizer)),
                ([negative] * len(prompts), prompts),
            )
            wanted = range(2)[-self._family.survey.branches :] if reading.branch is None else [reading.branch]
            unread = any(branch in self._family.survey.empties and not texts[branch][0] for branch in wanted)
            fits = {} if reading.open else {"padding": "max_length", "max_length": reading.length, "truncation": True}
            for port, key in ((f"{name}_ids", "input_ids"), (f"{name}_mask", "attention_mask")):
                if port not in rows and not (unread and (key == "input_ids" or reading.masked)):
                    continue
                branches = [rows.get(port, {}).get(branch) for branch in wanted]
                for place, branch in enumerate(wanted):
                    if branches[place] is None:
                        made = real([reading.shown(text) for text in texts[branch]], **fits)
                        branches[place] = np.asarray(made[key], np.int64)
                found[port] = np.stack([own for own in branches if own is not None], axis=1)
        return found

    def _noting(self, name: str, waiting: list[Any], rows: dict[str, dict[int, np.ndarray]]) -> Callable[..., AskedTokens]:
        """Tokenize as the pipeline asks, and note ids and masks by port and branch."""
        real = getattr(self.pipeline, name)

        def answer(texts: Sequence[str], options: Mapping[str, Any], images: Any = None) -> AskedTokens:  # noqa: ANN401
            call = waiting.pop(0)
            # Of an empty text some pipelines tokenize nothing, and the next is a text of their own.
            if None not in map(branch_of, call.texts) and waiting and None in map(branch_of, waiting[0].texts):
                call = waiting.pop(0) if waiting[0].texts == tuple(texts) else call
            given = self._tokenized(real, texts, options, call)
            branches = [branch_of(text) for text in call.texts]
            if not call.again and None not in branches:
                each = len(texts) // len(branches)
                for index, branch in enumerate(branch for branch in branches if branch is not None):
                    own = slice(index * each, (index + 1) * each)
                    entry, reading = self._family.survey.entries[name, branch]
                    ids, mask = (np.asarray(given[key][own], np.int64) for key in ("input_ids", "attention_mask"))
                    if reading.open:
                        own_ids = ids[mask.astype(bool)]
                        ids, mask = (each[None] for each in reading.filled(own_ids, text_processors.tokenizer(real)))
                    rows.setdefault(f"{entry}_ids", {})[branch] = ids
                    if reading.masked:
                        rows.setdefault(f"{entry}_mask", {})[branch] = mask
            if call.seen:
                given = call.seen.beside(given, [real.image_processor(images, return_tensors="pt")["pixel_values"]])
            return AskedTokens(dict(given), set())

        return answer

    def _tokenized(self, real: Any, texts: Sequence[str], options: Mapping[str, Any], call: Any) -> Mapping[str, Tensor]:  # noqa: ANN401
        """As the survey has a call, with each picture as often in a text as the text encoder has tokens of it."""
        if not call.seen:
            return text_processors.tokenized(real, texts, options)
        given = text_processors.tokenized(real.tokenizer, [call.seen.written(each) for each in texts], options)
        most = max(reading.most for reading in self._family.survey.readings.values() if reading.tokenizer == call.tokenizer)
        return {key: value[:, :most] for key, value in given.items()}

    def reordered(self, draws: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The pictures' noise before the latent's, in its sides, and no other that the pipeline draws before its first step."""
        survey = self._family.survey
        before, count = (self._family.conditions.draw, survey.drawn), survey.draws
        if self._started:
            before, count = self._started[1].drawn, self._started[1].draws
        taken = [*(draws[number] for number in before if number is not None), *draws[count:]]
        most, sides = survey.latent[0], draws[before[-1] or 0].shape[2:]
        taken = [each if each.shape[2:] == sides else each.reshape(len(each), -1, *sides) for each in taken]
        return [
            np.pad(each, [(0, 0), (0, most - each.shape[1])] + [(0, 0)] * 2) if each.shape[1] < most else each for each in taken
        ]

    def conditions(self, fed: Mapping[str, np.ndarray], noise: np.ndarray) -> dict[str, np.ndarray]:
        """What the pipeline's own code makes of pictures for its steps; as `condition_values`."""
        return condition_values(self._family, self.pipeline, fed, noise)

    def call(self, conditioning: Mapping[str, np.ndarray], guidance_scale: float | None, **options: Any) -> Any:  # noqa: ANN401
        """Run the pipeline on conditioning that `encode` returned; pictures are `images` of what it returns.

        Where nothing is encoded, its own `batch_size` among the options says how many are drawn.
        """
        survey, played = self._family.survey, options.pop("pipeline", self.pipeline)
        cache = options.pop("cache", self._family.recipe.sampler.cache)
        if self._started and self._started[0] is not played:
            self._started = None
        given = {name: own for name, own in options.pop("pictures", {}).items() if name != two_stages.NOISE}
        own = own_noise.OwnNoise(torch.from_numpy(given.pop(own_noise.NOISE))) if own_noise.NOISE in given else None
        pictures = image_arguments.in_hand({name: each for name, each in given.items() if each.ndim > 1}, survey.shared)
        piled = image_arguments.piled(pictures, piles=survey.piles)
        shown = survey.called_by(piled, self._started[1].shown if self._started else None)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in conditioning.items()}
        scale = survey.off if guidance_scale is None else guidance_scale
        off = survey.mode == "classifier_free" and scale <= survey.off and not survey.always_guided
        encoded = played_parts.restored(survey, tensors, torch.float32, self._alone if off else None)
        count = len(next(iter(conditioning.values()))) if conditioning else options["batch_size"]
        running = standins.stand_in(played, _execution_device=torch.device("cpu"))
        running.__dict__["check_inputs"] = lambda *_, **__: None
        running.__dict__.update(image_arguments.noting(played, lambda _, made: made) if survey.piles else {})
        running.__dict__.update(guiders.steered(played, scale))
        if encoded:
            running.__dict__[Play(played, torch.zeros, torch.zeros(1)).encoder] = dry_run.replayed(encoded)
        recipe = self._family.recipe
        asked = as_taken(played, recipe.model.call) | recipe.sampler.asked(options.get("num_inference_steps"))
        asked |= {**dry_run.off(options["height"], options["width"]), **shown, **options}
        begins = contextlib.nullcontext() if self._started else own_start.from_noise(played)
        if not self._started:
            running.__dict__.update(own_start.processors(played))
            asked |= own_start.blank(played, count, options["height"], options["width"])
        asked |= whole_numbers.as_called(played, {name: each for name, each in given.items() if each.ndim == 1})
        asked |= steering(played, survey.mode, scale) | played_parts.prompted(played, survey, encoded, count)
        # Pipelines that start from pictures have other defaults of further scales.
        asked |= {"output_type": "latent", **survey.scales} if self._started else {}
        takes = dry_run.arguments(played)
        if "callback_on_step_end" not in takes and "callback_on_step_end" in asked:  # diffusers' former way
            saw = asked.pop("callback_on_step_end")
            asked["callback"] = lambda index, time, latents: saw(played, index, time, {"latents": latents})
        asked = {"generator": torch.Generator(), **asked}
        unseeded = standins.Unseeded() if "generator" in takes else contextlib.nullcontext()
        shape = self._family.latent_shape(count, asked["height"], asked["width"])
        if self._started and self._started[1].turned:
            asked |= {"height": asked["width"], "width": asked["height"]}
        stepped, noting = cached(running, self._family, cache, shape[2:]), contextlib.nullcontext()
        dealt = contextlib.nullcontext() if own is None else own
        if self._noted is not None:
            fed = self._family.guidance.fed(guidance_scale)
            values = tensors | {name: torch.from_numpy(np.full(count, each, np.float32)) for name, each in fed.items()}
            noting = self._noted.of(running.scheduler, values, functools.partial(self.unpacked, shape=shape))
        with dry_run.quiet(), dealt, unseeded, begins, own_grid(running, asked) as left, stepped as self.features, noting:
            found = dry_run.image_of(running(**{name: left[name] for name in left if name in takes}))
        if self._started and isinstance(found, Tensor):  # as every latent becomes a picture, which some pipelines do not do right
            found = self.decode(self.unpacked(found, shape).numpy())
        return SimpleNamespace(images=found)

    @contextlib.contextmanager
    def reusing(self, depths: Sequence[int], reach: int, saw: Saw) -> Iterator[None]:
        """Behind it, every step of the run within it is answered by its first blocks too, on what earlier steps left."""
        self._noted = noted = cut_answers.NotedSteps()
        try:
            yield
        finally:
            self._noted = None
        cut_answers.compared(self._family, self.pipeline, noted, depths, reach, saw)

    def from_image(
        self, pixels: np.ndarray, anew: np.ndarray | None, strength: float | None, size: Mapping[str, int]
    ) -> tuple[Any, dict[str, Any]]:
        """The pipeline of diffusers that plays the same networks from an image, and its own arguments.

        Args:
            pixels: uint8 (height, width, 3).
            anew: bool (height, width), True where pixels are made anew; None where all are.
            strength: share of the steps that are played.
            size: height and width in pixels.

        """
        start = self._family.starts.get("image" if anew is None else "mask")
        if start is None:
            raise self._unpictured()
        self._started = siblings.over(start.kind, self.pipeline), start
        mask = {} if anew is None else {starts.MASK: image_arguments.pil(anew.astype(np.uint8)[..., None] * 255)}
        return self._started[0], {starts.IMAGE: image_arguments.pil(pixels), **mask, "strength": strength, **size}

    def encode_image(self, image: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """What its pipelines start from, of an image: float32 (B, C, h, w)."""
        if not self._family.starts:
            raise self._unpictured()
        module = self._family.played(self._family.image_encoder, self.pipeline)
        pairs = zip(torch.from_numpy(image).split(1), torch.from_numpy(noise).split(1), strict=True)
        with torch.no_grad():
            return np.concatenate([module(*pair).numpy() for pair in pairs])

    def _unpictured(self) -> UnsupportedError:
        return UnsupportedError(f"{self._family.survey.name} is built without an encoder of images.")

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """What the pipeline makes of a latent behind its last step: float32 (B, height, width, 3) in [0, 1]."""
        module = self._family.played("vae_decoder", self.pipeline)
        with torch.no_grad():
            return np.concatenate([module(row).numpy() for row in torch.from_numpy(latent).split(1)])
