"""Parts of a traced pipeline: modules whose `forward` is the pipeline's own code, with stand-ins for what is no network."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from engines.errors import UnsupportedError
from exporter.families.tracing import whole_numbers
from exporter.families.tracing.facts import Survey
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.constants import Constants
from exporter.families.tracing.following.dry_run import Leaf, Play
from exporter.families.tracing.following.filled_texts import filled_texts
from exporter.families.tracing.following.open_lengths import one_batch
from exporter.families.tracing.following.open_scale import OpenScale
from exporter.families.tracing.following.open_texts import OpenTexts, padded, uniform
from exporter.families.tracing.following.origins import DRAW, STEP, Origins, marked
from exporter.families.tracing.following.own_texts import Ones, Zeros, as_long
from exporter.families.tracing.following.standins import Finished, Stepped, outlined
from exporter.families.tracing.following.text_pairs import paired
from exporter.families.tracing.pictures import image_arguments, own_noise
from exporter.families.tracing.pipelines import two_stages
from exporter.families.tracing.pipelines.scales import steering
from exporter.families.tracing.steps import neutral
from exporter.families.tracing.steps.blocks import Blocks
from exporter.families.tracing.steps.crossings import Conditions
from exporter.families.tracing.texts import empty_texts, made_of_masks, seen_pictures, text_processors
from exporter.families.tracing.texts.readings import AskedTokens, branch_of
from exporter.part import DEEP


class PlayedPart(nn.Module):
    """A pipeline some of whose networks are here; the others are on the meta device.

    Args:
        survey: what is known of the pipeline.
        pipeline: of diffusers.
        names: components that compute, the one that passes change first.
        ports: names of the inputs.
        asked: further arguments of the pipeline's call.
        factor: pixels per cell of the latent.
        conditions: what of a step is made of pictures alone.

    """

    def __init__(
        self,
        survey: Survey,
        pipeline: Any,  # noqa: ANN401
        names: Sequence[str],
        ports: Sequence[str],
        asked: Mapping[str, Any],
        factor: int,
        conditions: Conditions,
    ) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, getattr(pipeline, name))
        self._survey, self._pipeline, self._names, self._ports = survey, pipeline, tuple(names), tuple(ports)
        self._asked, self._factor, self._conditions = dict(asked), factor, conditions

    def _play(self, draw: Callable[[Sequence[Any]], Tensor], time: Tensor, watch: Origins | None = None) -> Play:
        play = Play(self._pipeline, draw, marked(time, STEP), watch, leveled=self._survey.leveled, dtype=self._dtype)
        play.place(**{name: getattr(self, name) for name in self._names})  # a pass may have changed them
        play.place(**(image_arguments.taking(self._pipeline, {}) if self._survey.pictures else {}))
        return play

    def _drawing(
        self, latent: Tensor, noise: Tensor | None = None, own: Tensor | None = None
    ) -> Callable[[Sequence[Any]], Tensor]:
        """Answer the pipeline's draws: its latent, and zeros or the noise that is given for others; `own` is no latent's."""
        drawn = itertools.count()

        def draw(shape: Sequence[Any]) -> Tensor:
            if (number := next(drawn)) == self._survey.drawn:
                own = latent / self._survey.factor  # its sides may be asked for as those of a picture that is not encoded here
                return marked(own if own.ndim == len(shape) else own.reshape(tuple(shape)), STEP)
            return marked((torch.zeros(tuple(shape)) if noise is None else noise).reshape(tuple(shape)), f"{DRAW}{number}")

        return own_noise.beside(draw, own)

    @property
    def _dtype(self) -> torch.dtype:
        return next((value.dtype for value in self.parameters() if value.is_floating_point()), torch.float32)

    def _call(
        self,
        play: Play,
        encoded: Sequence[Any],
        latent: Tensor,
        scale: Any,  # noqa: ANN401 - as `steering`
        pictures: Mapping[str, Tensor] | None = None,
        values: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """Arguments of the pipeline's call for a latent; pictures (B, channels, height, width) and numbers, or blanks."""
        count, *sides = latent.shape[0], *(length * self._factor for length in latent.shape[2:])
        size = dict(zip(("height", "width"), sides, strict=True))
        given = prompted(play.pipeline, self._survey, encoded, count) | steering(self._pipeline, self._survey.mode, scale)
        shown = self._survey.shown(count, sides[0], sides[1], pictures)
        shown |= whole_numbers.given(self._pipeline, count, values or {})
        return {**self._asked, **shown, **given, **size, "num_inference_steps": 1}

    def _bare(self, count: Any) -> list[Any]:  # noqa: ANN401 - an open length
        """Conditioning of as many prompts, all zeros."""
        leaves = (leaf for each in self._survey.conditioning for leaf in each if isinstance(leaf, Leaf))
        return self._conditioning({leaf.name: torch.zeros((count, *leaf.seen_shape)) for leaf in leaves})

    def _conditioning(self, values: Mapping[str, Tensor]) -> list[Any]:
        return restored(self._survey, values, self._dtype)


class PlayedText(PlayedPart):
    """Every text encoder: ids and masks (1, branches, length) → what the pipeline's own encoding of prompts returns."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...] | Tensor:
        """Encode one picture's prompts."""
        values, found = dict(zip(self._ports, inputs, strict=True)), list[Tensor]()
        for place, (encoding, leaves) in enumerate(zip(self._survey.encodings, self._survey.conditioning, strict=True)):
            play = self._play(torch.zeros, torch.zeros(1))
            play.place(**two_stages.answered(values.get(two_stages.NOISE)))
            real = text_processors.of(self._pipeline)
            calls = {name: [call for call in encoding.tokens if call.tokenizer == name] for name in real}
            play.place(
                **{name: text_processors.answering(each, self._answering(calls[name], values)) for name, each in real.items()}
            )
            encode = getattr(type(play.pipeline), play.encoder)
            plain = not self._survey.seen
            known = contextlib.nullcontext() if plain else seen_pictures.unchecked()
            constant = contextlib.nullcontext() if plain else Constants()
            with torch.no_grad(), sized(inputs[0]), filled_texts(play.pipeline), OpenTexts(), known, constant:
                flat, _ = dry_run.leaves(encode(play.pipeline, *encoding.args, **encoding.kwargs), 1)
            made = [as_port(*pair) if isinstance(pair[1], Leaf) else None for pair in zip(flat, leaves, strict=True)]
            found += empty_texts.emptied(self._survey, place, made, values)
        return tuple(found) if len(found) > 1 else found[0]

    def _answering(self, calls: list[Any], values: Mapping[str, Tensor]) -> Callable[..., AskedTokens]:
        """Answer the calls of one tokenizer in the order in which the survey saw them."""

        def answer(_texts: Sequence[str], options: Mapping[str, Any], _images: Any = None) -> AskedTokens:  # noqa: ANN401
            call = calls.pop(0)
            return AskedTokens(made_of_masks.beside(given(call, options), call.more), set())

        def given(call: Any, options: Mapping[str, Any]) -> dict[str, Tensor]:  # noqa: ANN401 - of the survey
            rows: list[Any] = [branch_of(text) for text in call.texts]
            if call.again or None in rows:  # to warn of what does not fit, which is not compared where it is short
                ids, mask = (call.ids[:, :0], call.mask[:, :0]) if call.again else (call.ids, call.mask)
                return {"input_ids": ids, "attention_mask": mask}
            entries = [self._survey.entries[call.tokenizer, row] for row in rows]
            alone = self._survey.branches == 1 or entries[0][1].branch is not None
            places = [(name, 0 if alone else row) for (name, _), row in zip(entries, rows, strict=True)]
            if len(rows) > 1 and entries[0][1].open:
                real = text_processors.tokenizer(getattr(self._pipeline, call.tokenizer))
                ids, mask, lengths = paired([values[f"{name}_ids"][:, 0] for name, _ in places], real.pad_token_id)
                return {"input_ids": ids, "attention_mask": uniform(mask, lengths)}
            ids = torch.cat([values[f"{name}_ids"][:, place] for name, place in places])
            masks = [values[f"{name}_mask"][:, place] for name, place in places if f"{name}_mask" in values]
            if masks:
                found = {"input_ids": ids, "attention_mask": torch.cat(masks)}
                real = text_processors.tokenizer(getattr(self._pipeline, call.tokenizer))
                return as_long(found, options["max_length"], real) if entries[0][1].whole else found
            if not entries[0][1].open:
                return {"input_ids": ids, "attention_mask": call.mask}
            real = text_processors.tokenizer(getattr(self._pipeline, call.tokenizer))
            ids, whole = padded(ids, real, entries[0][1].pads)
            found = {"input_ids": ids, "attention_mask": whole}
            if call.seen:
                return dict(call.seen.beside(found, call.seen.patched(values, seen_pictures.ports(self._survey))))
            return found

        return answer


class PlayedStep(PlayedPart):
    """One step of the pipeline: latent (B, C, H, W), timestep (B,), conditioning and scales by name → the model's output.

    Args:
        given: of `PlayedPart`.
        cut: where the network is cut for step caching, and at which depth. The step then returns its deep feature too; given
            one, it computes the first blocks alone.

    """

    def __init__(self, *given: Any, cut: tuple[Blocks, int] | None = None) -> None:  # noqa: ANN401 - of `PlayedPart`
        super().__init__(*given)
        self._cut = cut
        self._neutral = neutral.scale(self._survey) if "guidance_scale" in self._ports else 0.0

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Call the pipeline up to its scheduler's `step`."""
        values = dict(zip(self._ports, inputs, strict=True))
        if self._cut is None:
            return self._answer(values, inputs)
        (blocks, depth), network = self._cut, getattr(self, self._names[0])
        if DEEP in values:
            with blocks.shallow(network, depth, blocks.of_port(values.pop(DEEP))):
                return self._answer(values, inputs)
        with blocks.whole(network, depth, values["latent"].shape[2:]) as kept:
            answer = self._answer(values, inputs)
        return answer, blocks.as_port(kept, values["latent"])

    def _answer(self, values: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> Tensor:
        survey, latent = self._survey, values["latent"]
        one_batch(inputs)

        def crossing(number: int, made: Tensor) -> Tensor:
            own = self._conditions.crossings[number]
            return own.unfolded(values[own.name], made.dtype)

        watch = Origins(crossing, "step") if survey.pictures else None
        play = self._play(self._drawing(latent), values["timestep"], watch)
        encoded = self._conditioning(values)
        waiting = list(encoded)
        play.encode_by(dry_run.replaying(waiting))
        scales = {name: marked(values[name], STEP) for name in ("guidance_scale", *survey.scales) if name in values}
        if self._neutral != survey.off and "guidance_scale" in scales:  # the formula's own, where the pipeline leaves it out
            asked = scales["guidance_scale"]
            scales["guidance_scale"] = marked(torch.where(asked > survey.off, asked, self._neutral), STEP)
        scale: Any = OpenScale(scales["guidance_scale"], on=True) if "guidance_scale" in scales else survey.off
        others = {name: OpenScale(scales[name], on=default > 0) for name, default in survey.scales.items()}
        try:
            with sized(latent):
                play(**self._call(play, encoded, latent, scale, values=values) | others)
        except Stepped as event:
            if waiting:  # and which of them it had is not known
                told = "asks for no encoding of some prompts in a step, which is not built"
                raise UnsupportedError(f"{survey.name} {told}.") from None
            return dry_run.unpacked(survey.way, event.output, latent).float()
        raise RuntimeError(f"{survey.name} returned without a step")


class PlayedConditions(PlayedPart):
    """What a step takes of pictures alone: pictures (B, height, width, C), and noise where it is random → crossings by name."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...] | Tensor:
        """Call the pipeline up to its scheduler's `step`, without the networks that come after all of them."""
        values = dict(zip(self._ports, inputs, strict=True))
        noise, own, found = values.pop("noise", None), values.pop(own_noise.NOISE, None), dict[int, Tensor]()
        numbers = {name: values.pop(name) for name in self._conditions.fed if name in values}
        one_batch(inputs)

        def crossing(number: int, made: Tensor) -> Tensor:
            if number not in found:
                found[number] = self._conditions.crossings[number].folded(made, sides[1])
            return made

        pictures = {name: picture.permute(0, 3, 1, 2) for name, picture in values.items()}
        drawn = (picture.shape[2:] for name, picture in pictures.items() if self._survey.own_sides(name) is None)
        asked = [length // self._survey.enlarges for length in self._survey.size]
        first, size = next(iter(pictures.values())), next(drawn, asked)
        count, sides = first.shape[0], [length * self._survey.enlarges // self._factor for length in size]
        latent = torch.zeros(count, self._survey.latent[0], *sides)
        play = self._play(self._drawing(latent, noise, own), torch.zeros(count), Origins(crossing, "pictures"))
        play.place(**self._survey.unasked(self._pipeline, but=self._conditions.begun))
        encoded = self._bare(count)
        play.encode_by(dry_run.replayed(encoded))
        # Not before: what ends a network's call halfway leaves a trace of it open.
        with contextlib.suppress(Stepped), sized(first):
            play(**self._call(play, encoded, latent, self._survey.scale, pictures, numbers) | self._survey.others)
        ordered = tuple(found[number] for number in range(len(self._conditions.crossings)))
        return ordered if len(ordered) != 1 else ordered[0]


class PlayedDecoder(PlayedPart):
    """What the pipeline does behind its last step: latent (1, C, H, W) → image (1, height, width, 3) in [0, 1]."""

    def forward(self, latent: Tensor) -> Tensor:
        """Call the pipeline with a step that changes nothing, and networks that compute nothing."""
        survey, dtype = self._survey, self._dtype
        watch = Origins(lambda _, made: torch.zeros(made.shape, dtype=made.dtype), "step") if survey.pictures else None
        play = self._play(self._drawing(latent.to(dtype)), torch.zeros(1), watch)
        encoded = self._bare(1)
        play.encode_by(dry_run.replayed(encoded))
        play.on_step = play.pass_through
        play.place(**survey.unasked(self._pipeline))
        try:
            with sized(latent):
                play(**self._call(play, encoded, latent, survey.off), output_type="np")
        except Finished as event:
            return event.image.float()
        raise RuntimeError(f"{survey.name} returned no picture as an array")


def sized(given: Tensor) -> AbstractContextManager[None]:
    """Where a part is run on the meta device, what its pipeline makes itself takes part in it."""
    return outlined() if given.is_meta else nullcontext()


def restored(
    survey: Survey, values: Mapping[str, Tensor], dtype: torch.dtype, alone: Mapping[str, int] | None = None
) -> list[Any]:
    """What the pipeline's encoder of prompts returned, call by call, of the ports' values; real numbers in `dtype`.

    `alone`: port → which of a picture's rows is returned alone, as without guidance.
    """
    named = [leaf for each in survey.conditioning for leaf in each if isinstance(leaf, Leaf)]
    lengths = {dim: values[leaf.name].shape[1 + axis + (leaf.times > 1)] for leaf in named for axis, dim in leaf.open.items()}

    def put(leaf: Any) -> Any:  # noqa: ANN401 - a constant is anything
        if isinstance(leaf, Ones):
            return uniform(leaf.made(next(iter(values.values())).shape[0], lengths[leaf.dim]))
        if isinstance(leaf, Zeros):
            return uniform(leaf.made(next(iter(values.values())).shape[0]), 0)
        if not isinstance(leaf, Leaf):
            return leaf
        value = values[leaf.name].to(dtype if leaf.dtype.is_floating_point else leaf.dtype)
        if alone and leaf.name in alone:
            return value[:, alone[leaf.name]]
        return list(value.unbind(0)) if leaf.rows else marked(dry_run.as_rows(value, leaf.times), STEP)

    found = []
    for encoding, leaves in zip(survey.encodings, survey.conditioning, strict=True):
        _, spec = dry_run.leaves(encoding.found, 1)
        found.append(pytree.tree_unflatten([put(leaf) for leaf in leaves], spec))
    return found


def prompted(pipeline: Any, survey: Survey, encoded: Sequence[Any], count: Any) -> dict[str, Any]:  # noqa: ANN401
    """Arguments that stand for the prompts, which are encoded: by their number alone, and open where the pipeline lets it be."""
    takes = dry_run.arguments(pipeline)
    negative = {"negative_prompt": ""} if survey.branches == 2 else {}
    leaves = survey.conditioning[0] if encoded else []
    # Not of lists of one tensor a picture: some pipelines that are given them do not ask for an encoding of the negative prompt
    # either, and others ask for that one alone.
    if "prompt_embeds" in takes and leaves and not any(leaf.rows for leaf in leaves if isinstance(leaf, Leaf)):
        _, spec = dry_run.leaves(survey.encodings[0].found, 1)
        flat = list(zip(spec.flatten_up_to(encoded[0]), leaves, strict=True))
        first, leaf = next((each, leaf) for each, leaf in flat if isinstance(each, Tensor))
        if isinstance(leaf, Leaf) and leaf.times > 1 and first.shape[0] != count:
            first = first[: first.shape[0] // leaf.times]
        return {"prompt": None, "prompt_embeds": first, **negative}
    if "prompt" not in takes:
        return {"batch_size": count}
    count = int(count)
    return {"prompt": [""] * count, **{name: [text] * count for name, text in negative.items()}}


def as_port(value: Any, leaf: Leaf) -> Tensor:  # noqa: ANN401 - what the encoder returned in the leaf's place
    """What crosses a part's boundary."""
    found = torch.stack(value) if leaf.rows else dry_run.as_pictures(value, leaf.times)
    return found.float() if leaf.dtype.is_floating_point else found.long()
