"""What a survey of a pipeline finds: ports, lengths, tokens and components, at the sizes that a recipe asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from engines.errors import UnsupportedError
from exporter.families.tracing import encodings, whole_numbers
from exporter.families.tracing.following import dry_run, further_times, latent_layouts, own_start, own_texts
from exporter.families.tracing.following.dry_run import NEGATIVE, POSITIVE, Encoding, Play
from exporter.families.tracing.following.open_scale import OpenScale
from exporter.families.tracing.following.origins import DRAW, STEP, Origins, drawn_of, marked
from exporter.families.tracing.following.standins import Absent, Finished, Stepped, idle, outlined, refused
from exporter.families.tracing.pictures import image_arguments, own_noise
from exporter.families.tracing.pipelines import two_stages
from exporter.families.tracing.pipelines.one_text import TextList, checked
from exporter.families.tracing.pipelines.scales import open_scales, other_scales, steering
from exporter.families.tracing.text_facts import TextFacts
from exporter.families.tracing.texts import (
    text_processors,
)

#: A text that whoever mends texts changes.
_ODD = "salt &amp; pepper"


class Survey(TextFacts):
    """What one pipeline does, asked for pictures of one size.

    Args:
        pipeline: of diffusers, its networks on the meta device.
        asked: further arguments of its call.
        mode: of guidance.
        height: in pixels.
        width: in pixels.
        steps: that the pipeline is asked for.
        hand: what its call is given of a tensor that is a picture; None: it is given none.
        lists: argument → how many pictures it is a list of, where it is one.
        prepared: name of an input → what is made of it, where that is known before.
        words: name of an input → the argument that is that picture; by default the arguments' own names.
        judged: whether the pipeline itself checks what it is asked, as it does for whoever calls it.
        cut: whether tokenizers leave out what pads a text.
        enlarges: how many times as large as its pictures is what it draws.
        leveled: whether its step is computed from the noise's level; that it is so is told by `levels`.

    Attributes:
        pictures: name of an input → the argument of the call that is that picture.
        shared: pictures of which one call takes one, for all its prompts; `size` is the height and width that it was asked for.
        drawn: which of the noises that the pipeline draws is the latent's.
        draws: how many it draws before its first step; `unseeded` are those beside them that no seed reaches.
        branches: prompts a picture.
        encodings: the calls of its encoder of prompts, for one picture.
        returned: component → what it last returned of several things, with `Absent` for tensors.
        components: phase → names of those that compute in it, in the order in which they first do.
        latent: shape of the noise, behind the batch.
        noises: shapes of all noises as the pipeline draws them.
        way: how the pipeline keeps it, and by what it multiplies it.
        grid: what its scheduler was told.
        scale: of guidance; `others` are the pipeline's further scales.
        options: what `step` was given beside output, time and sample.
        earlier: how many noises a first stage draws for a picture, and the shape of each; () without one.
        owned: the same of noises for its pictures that are no latent's.
        texts: what its prompts are a list of, as its call is given them.
        fills: whether it puts its picture under noise, in which it fills a mask.
        counts: whether a network asks masks that pad texts how many ids are a text's own.

    Raises:
        UnsupportedError: its code cannot be followed, or keeps latents in no way that is known.

    """

    def __init__(
        self,
        pipeline: Any,  # noqa: ANN401
        asked: Mapping[str, Any],
        mode: str,
        height: int,
        width: int,
        steps: int,
        hand: Callable[[Tensor], Any] | None = None,
        lists: Mapping[str, int] | None = None,
        *,
        prepared: Mapping[str, image_arguments.Picture] | None = None,
        words: Mapping[str, str] | None = None,
        judged: bool = False,
        cut: bool = False,
        enlarges: int = 1,
        leveled: bool = False,
    ) -> None:
        self.pipeline, self.mode, self.cut, self.enlarges, self.leveled = pipeline, mode, cut, enlarges, leveled
        self.lists, self._hand = dict(lists or {}), hand or image_arguments.as_numbers
        named = image_arguments.arguments(pipeline) if words is None else words
        self.pictures = image_arguments.numbered(named, self.lists) if hand else {}
        self.prepared = dict(prepared or {}) | image_arguments.mapped(self.pictures)
        self.shared = frozenset(name for name, argument in self.pictures.items() if argument == image_arguments.SHARED)
        self.size = height, width
        self.drawn: int | None = None
        self.name = type(pipeline).__name__
        self._asked = {**asked, "height": height, "width": width, "num_inference_steps": steps}
        self.branches = 2 if mode == "classifier_free" else 1
        self.components: dict[str, list[str]] = {}
        self.returned: dict[str, Any] = {}
        self.scale = OpenScale(marked(torch.ones(1), STEP), on=mode != "none")
        self.others = open_scales(other_scales(pipeline))
        self._read: dict[str, set[str]] = {}
        self.texts: type[list[str]] = TextList
        self.owned, owned = (), list[tuple[int, ...]]()
        play, noises = self._play(1, owned=owned)
        self.encodings = self._recorded(play)
        masks, called = own_texts.AskedMasks(), self.called(1)
        play.place(**(first := two_stages.answered(None)))
        if judged and (check := play.own("check_inputs")):  # which is a stage's where there are two
            play.place(check_inputs=checked(check))
        try:
            watched = dry_run.watched(play.pipeline, lambda: play.phase, self.components)
            told = further_times.refused(play.pipeline, self.name)
            with outlined(), watched, told, dry_run.returning(play.pipeline, self.returned), masks:
                play(**called)
        except Stepped as event:
            self._kept, self.options, self.output = event.sample, event.options, event.output
        except UnsupportedError:
            raise
        except Exception as error:
            raise refused(self.name, error, self.pipeline.components) from error
        else:
            raise UnsupportedError(f"{self.name} never calls its scheduler's step.\n  Only pipelines that denoise are built.")
        self._written = called["prompt"].written
        self.texts = TextList if self._written else list
        self.earlier = next(iter(first.values())).of_a_picture(self.name)
        self.owned = own_noise.of_a_picture(owned, self.name)
        pads = any(not call.mask.all() for each in self.encodings for call in each.tokens)
        self.counts = masks.asked and pads
        self.draws, self.unseeded, self.levels, self.fills = len(noises), play.unseeded.drawn, play.levels.read, play.fills
        self.drawn = drawn_of(self._kept, len(noises), self.name) if self.draws > 1 or self.pictures else 0
        noise = dry_run.of_latent(noises, self.drawn, owned, self.name)
        self.noises, self.grid = [tuple(each.shape) for each in noises], play.grid
        self.latent = latent_layouts.channels_first(dry_run.flat(self.noises[self.drawn], self.name), self.size, self.name)
        self.way, self.factor = dry_run.packing(noise.reshape(1, *self.latent), self._kept, self.name)

    @property
    def piles(self) -> bool:
        """Whether none but its image processors look into its pictures, of which several are then one thing to it."""
        return bool(self.pictures) and self._hand is image_arguments.Shown

    def shown(
        self,
        batch: Any,  # noqa: ANN401 - open lengths
        height: Any,  # noqa: ANN401
        width: Any,  # noqa: ANN401
        given: Mapping[str, Tensor] | None = None,
        words: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Arguments of the call that are pictures (batch, channels, …), to draw a size of: those that are given, else black."""
        sides = height // self.enlarges, width // self.enlarges
        counts = {name: 1 if name in self.shared else batch for name in self.pictures}
        pictures = {name: torch.zeros(count, 3, *(self.own_sides(name) or sides)) for name, count in counts.items()}
        pictures |= dict(given or {})
        shown = {name: self._hand(marked(picture, name)) for name, picture in pictures.items()}
        return own_start.blank(self.pipeline, batch, *sides) | self.called_by(shown, words)

    def own_sides(self, name: str) -> tuple[int, int] | None:
        """Height and width of a picture that has a size of its own; None of one that is as large as what is drawn."""
        return self.prepared.get(name, image_arguments.PLAIN).sides

    def called_by(self, pictures: Mapping[str, Any], words: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What stands for each picture by its argument of the call, or by another's `words`; lists where they are."""
        words = self.pictures if words is None else words
        lists = {words[name] for name in pictures if self.pictures[name] in self.lists}
        return image_arguments.by_argument(pictures, words, lists)

    def called(self, batch: int, tail: str = "") -> dict[str, Any]:
        """Arguments of the pipeline's call for that many pictures; `tail` is what the texts go on with."""
        texts = {"prompt": self.texts([POSITIVE + tail] * batch)}
        texts |= {"negative_prompt": self.texts([NEGATIVE + tail] * batch)} if self.branches == 2 else {}
        shown = self.shown(batch, self._asked["height"], self._asked["width"])
        asked = {"batch_size": batch, **whole_numbers.given(self.pipeline, batch, {}), **texts, **shown, **self._asked}
        return {**asked, **steering(self.pipeline, self.mode, self.scale), **self.others, "output_type": "np"}

    @property
    def off(self) -> float:
        """The guidance scale at which the pipeline does without guidance, as it does at smaller ones."""
        return 1.0 if self.scale.threshold is None else self.scale.threshold

    @property
    def always_guided(self) -> bool:
        """Whether the pipeline runs both branches at whatever scale."""
        reads = any(NEGATIVE.lower() in text.lower() for each in self.encodings for call in each.tokens for text in call.texts)
        return reads and self.scale.used and not self.scale.compared

    @property
    def scales(self) -> Mapping[str, float]:
        """Further scales that the pipeline computes with, and their defaults."""
        return {name: value for name, value in other_scales(self.pipeline).items() if self.others[name].used}

    @cached_property
    def following(self) -> Mapping[str, float]:
        """Those of them that do not count where guidance is off, and the value at which each is; none where it never is."""
        return {} if isinstance(self.unguided, UnsupportedError) else self.unguided

    @cached_property
    def unguided(self) -> Mapping[str, float] | UnsupportedError:
        """As `following`; or how the pipeline's own code fails where guidance is off, which it then never is."""
        if self.mode != "classifier_free" or not self.scales:
            return {}
        others = open_scales(self.scales)
        off = steering(self.pipeline, self.mode, OpenScale(marked(torch.ones(1), STEP), on=False))
        play, _ = self._play(1)
        self._recorded(play)
        try:
            self._run(play, **{**self.called(1), **off, **others})
        except UnsupportedError as error:
            return error
        ends = {name: self.others[name].threshold for name, scale in others.items() if not scale.used}
        return {name: end for name, end in ends.items() if end is not None}

    def _run(self, play: Play, **asked: Any) -> None:  # noqa: ANN401 - arguments of the pipeline's call
        """Run the pipeline for shapes, to its first step or to where it ends before."""
        try:
            with outlined():
                play(**asked)
        except Stepped:
            pass
        except UnsupportedError:
            raise
        except Exception as error:
            raise refused(self.name, error, self.pipeline.components) from error

    def _play(
        self, batch: int, follow: Origins | None = None, owned: list[tuple[int, ...]] | None = None
    ) -> tuple[Play, list[Tensor]]:
        noises: list[Tensor] = []

        def draw(shape: Sequence[int]) -> Tensor:
            count, number = int(torch.Size(shape).numel()), len(noises)
            noises.append(torch.linspace(-1.0, 1.0, count).reshape(tuple(shape)))
            return marked(noises[-1], STEP if number == self.drawn else f"{DRAW}{number}")

        follow = follow or (Origins() if self.pictures else None)
        drawing = own_noise.beside(draw, seen=owned)
        play = Play(self.pipeline, drawing, marked(torch.full((batch,), 500.0), STEP), follow, leveled=self.leveled)
        play.place(**(image_arguments.taking(self.pipeline, self.prepared) if self.pictures else {}))
        return play, noises

    def _recorded(self, play: Play, ends: int | None = None) -> list[Encoding]:
        """Let the pipeline encode by its own code, and keep what it was asked and what it gave; the run `ends` after so many."""
        return encodings.recorded(play, text_processors.of(self.pipeline), self._read, cut=self.cut, ends=ends)

    def follow(
        self, watch: Origins, begun: dict[str, list[str]], size: tuple[int, int, int], asked_of: Sequence[str] | None = None
    ) -> None:
        """Run the pipeline to its first step, for (pictures, height, width), under what follows its pictures.

        The networks that have begun to compute are noted in `begun`, all under one name. None but those of `asked_of` compute in
        a step; by default all do.
        """
        batch, height, width = size
        play, _ = self._play(batch, watch)
        self._recorded(play)
        play.place(**({} if asked_of is None else self.unasked(self.pipeline, but=asked_of)))
        asked = {**self.called(batch), **self.shown(batch, height, width), "height": height, "width": width}
        with dry_run.watched(play.pipeline, lambda: "begun", begun):
            self._run(play, **asked)

    @property
    def lone(self) -> bool:
        """Whether it draws one picture a call: it writes its prompt into a text of its own, or its call refuses two."""
        return self._written or self._asked_longer[1] == 1

    @property
    def longer(self) -> list[Encoding]:
        """Of `TextFacts`."""
        return self._asked_longer[0]

    @cached_property
    def _asked_longer(self) -> tuple[list[Encoding], int]:
        """What it encodes of longer texts for two pictures, and that it was for so many; for one where two are refused."""
        refusals = list[UnsupportedError]()
        for count in (2, 1):
            play, _ = self._play(count)
            found, play.prepares = self._recorded(play, len(self.encodings)), True
            try:
                self._run(play, **self.called(count, " and further words"))
            except UnsupportedError as error:
                refusals.append(error)
            else:
                return found, count
        raise refusals[0]

    def encoded(self, prompt: str, negative: str) -> list[Encoding]:
        """What the pipeline encodes of other texts."""
        play, _ = self._play(1)
        found, play.prepares = self._recorded(play, len(self.encodings)), True
        texts = {"prompt": self.texts([prompt]), "negative_prompt": self.texts([negative])}
        self._run(play, **{**self.called(1), **{name: texts[name] for name in texts if name in self.called(1)}})
        return found

    @cached_property
    def image(self) -> tuple[int, ...]:
        """Shape of a picture, (height, width, channels)."""
        play, _ = self._play(1)
        play.encode_by(dry_run.replayed([each.found for each in self.encodings]))
        play.on_step = play.pass_through
        play.place(**self.unasked(self.pipeline))
        try:
            with outlined(), dry_run.watched(play.pipeline, lambda: play.phase, self.components):
                play(**self.called(1))
        except Finished as event:
            return tuple(event.image.shape[1:])
        except Exception as error:
            raise refused(self.name, error, self.pipeline.components) from error
        raise UnsupportedError(f"{self.name} returns no picture as an array.")

    def step(self, encode: Callable[..., Any]) -> None:
        """Run the pipeline for shapes to its first step, on prompts that `encode` encodes."""
        play, _ = self._play(1)
        play.encode_by(encode)
        self._run(play, **self.called(1))

    def refuse_putting_back(self) -> None:
        """Raise UnsupportedError where it puts back what its mask keeps, after the first of two steps."""
        play, _ = self._play(1)
        play.encode_by(dry_run.replayed([each.found for each in self.encodings]))
        play.on_step = play.pass_through
        play.place(scheduler=own_start.of_two_steps(play.pipeline.scheduler), **self.unasked(self.pipeline))
        with contextlib.suppress(Finished):
            self._run(play, **self.called(1))

    def unasked(self, pipeline: Any, but: Sequence[str] = ()) -> dict[str, Any]:  # noqa: ANN401 - of diffusers
        """The networks of a step but some, in place of which are others that compute nothing."""
        names = [name for name in self.components.get("denoiser", []) if name not in but]
        return {name: idle(getattr(pipeline, name), self.returned.get(name, Absent())) for name in names}

    def times(self, height: int, width: int, steps: int) -> dict[str, Any]:
        """What the pipeline tells its scheduler for another size and number of steps, beside that number."""
        play, _ = self._prepared(height, width, steps)
        return {name: value for name, value in play.grid.asked.items() if name != "num_inference_steps"}

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Cells of the latent, down and across, of another size."""
        _, noises = self._prepared(height, width, 1)
        down, across = dry_run.flat(tuple(noises[self.drawn or 0].shape), self.name)[1:]
        return down, across

    def earlier_at(self, height: int, width: int) -> tuple[int, ...]:
        """As `earlier`, for another size."""
        play, _ = self._play(1)
        self._recorded(play)
        play.place(**(first := two_stages.answered(None)))
        play.prepares = True
        self._run(play, **{**self.called(1), "height": height, "width": width})
        (earlier,) = first.values()
        return earlier.of_a_picture(self.name)

    def _prepared(self, height: int, width: int, steps: int) -> tuple[Play, list[Tensor]]:
        """Let the pipeline prepare for a size and number of steps, and take none."""
        play, noises = self._play(1)
        play.encode_by(dry_run.replayed([each.found for each in self.encodings]))
        play.prepares = True
        asked = {**self.called(1), **self.shown(1, height, width), "height": height, "width": width, "num_inference_steps": steps}
        self._run(play, **asked)
        return play, noises
