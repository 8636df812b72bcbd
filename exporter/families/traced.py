"""Any pipeline of diffusers: its own code is run where its graphs are made, so nothing here knows one by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from engines.errors import RecipeError, UnsupportedError
from engines.guidance import Guidance, Scale
from engines.inputs import Input
from engines.manifest import PartialStep, Role, StartsFrom, Tokenizer
from exporter.families import Driving, edits
from exporter.families.tracing.problems import problems, refuse, strangers
from exporter.part import SHALLOW, Part
from exporter.part import Precision as Precision  # noqa: PLC0414 - the families' own argument type

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from engines.signature import Signature
    from exporter.families.tracing.facts import Survey
    from exporter.families.tracing.reference import TracedReference
    from exporter.families.tracing.starts import Start
    from exporter.families.tracing.steps.blocks import Blocks
    from exporter.families.tracing.steps.crossings import Conditions
    from exporter.models.checkpoint import Checkpoint
    from exporter.recipe.schema import Recipe

__all__ = ["Traced"]

_TEXT, _CONDITION, _DECODER = "text_encoder", "condition", "vae_decoder"
#: Latents of an open size are multiples of this many cells, where the recipe's sizes are: networks halve their sides.
_CELLS = 8


class Traced:
    """What a survey of the pipeline says, under the families' contract.

    Unlike the families that are written by hand this one imports torch to plan: it runs the pipeline once, without memory for
    its networks.
    """

    general: ClassVar[bool] = True
    image_encoder = "vae_encoder"
    towers: Mapping[str, str] = {}

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe) -> None:
        refuse(recipe)
        self.checkpoint, self.recipe = checkpoint, recipe
        self._editing = self.image_encoder in recipe.components or edits(checkpoint.configs, recipe)
        self.survey: Survey = self._surveyed()
        before: dict[str, Role] = {_TEXT: "text"} if self.survey.encodings else {}
        before |= {_CONDITION: "condition"} if self.conditions.crossings else {}
        after: dict[str, Role] = {self.image_encoder: "encoder"} if self.starts else {}
        denoiser = self.survey.components["denoiser"][-1]
        after |= {f"{denoiser}{SHALLOW}": "shallow"} if recipe.sampler.cache else {}
        self.roles: Mapping[str, Role] = {**before, denoiser: "denoiser", _DECODER: "decoder", **after}
        if found := problems(self.survey, recipe, self.factor):
            raise RecipeError(found)
        if recipe.sampler.cache and (told := self.blocks.problem(recipe.sampler.cache.depth)):
            raise RecipeError([told])
        if found := strangers(self.survey, recipe, self.roles, self.image_encoder):
            raise RecipeError(found)

    @staticmethod
    def claims(configs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whatever pipeline diffusers has under the name that the model is saved with."""
        return isinstance(configs.get("model_index", {}).get("_class_name"), str)

    # What the survey says.

    def _surveyed(self) -> Survey:
        """The pipeline at the recipe's typical size."""
        from exporter.families.tracing import token_counts  # noqa: PLC0415
        from exporter.families.tracing.following import guiders  # noqa: PLC0415 - torch
        from exporter.families.tracing.pictures import depth_maps  # noqa: PLC0415
        from exporter.families.tracing.pipelines import call, siblings  # noqa: PLC0415 - torch
        from exporter.families.tracing.surveying import surveyed  # noqa: PLC0415

        shapes = self.recipe.shapes
        pipeline = self.pipeline(loaded=())
        asked = self.recipe.model
        if found := [*call.problems(pipeline, asked.call), *call.picture_problems(pipeline, asked.pictures)]:
            raise RecipeError(found)
        if self.recipe.sampler.guidance.mode == "classifier_free":
            guiders.refuse(pipeline, max(self.recipe.sampler.steps))
        found = surveyed(
            pipeline, self.arguments, self.recipe.sampler.guidance.mode,
            shapes.height[1], shapes.width[1], self.recipe.sampler.steps[0],
            words=siblings.words(type(pipeline)) if self._editing else None, judged=bool(asked.call),
            shown=_CONDITION in self.recipe.components or bool(depth_maps.named(pipeline)), lists=asked.pictures,
        )  # fmt: skip
        token_counts.refuse_stairs(found)
        return found

    @property
    def starts(self) -> Mapping[StartsFrom, Start]:
        """By what is given, `image` or `mask`, how pipelines of diffusers start from it; none where the recipe wants none."""
        return self._started[0]

    @cached_property
    def _started(self) -> tuple[Mapping[StartsFrom, Start], Sequence[str]]:
        from exporter.families.tracing import starts  # noqa: PLC0415 - torch

        return starts.starts(self.survey) if self._editing else ({}, ())

    @property
    def _start(self) -> Start:
        """The one whose encoder is built, from an image alone where there is one; all encode alike."""
        return next(iter(self.starts.values()))

    @property
    def partial_step(self) -> PartialStep:
        """As the pipelines count that start from a picture."""
        return self._start.partial if self.starts else "dropped"

    @property
    def conditions(self) -> Conditions:
        """What of a step is made of pictures alone."""
        return self._conditions

    @cached_property
    def _conditions(self) -> Conditions:
        from exporter.families.tracing.steps import crossings  # noqa: PLC0415 - torch

        return crossings.conditions(self.survey, self.recipe.shapes, self.factor)

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The pictures that the pipeline is given, in the order of its arguments, and the class that it draws."""
        from exporter.families.tracing import inputs, signatures  # noqa: PLC0415 - torch

        return inputs.entries(self.survey, self.conditions.pictures, signatures.pixels(self.factor // self.survey.enlarges))

    @property
    def shared_inputs(self) -> frozenset[str]:
        """An IP-Adapter's picture: a bundle takes one a picture."""
        return self.survey.shared

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the pipeline's call beside prompts, size, steps and guidance: those that the recipe states."""
        from exporter.families.tracing.pipelines import assemble, call  # noqa: PLC0415 - torch

        own = call.as_taken(assemble.kind_of(self.checkpoint), self.recipe.model.call) if self.recipe.model.call else {}
        return {**own, **self.recipe.sampler.asked()}

    def components(self, part: str) -> tuple[str, ...]:
        """Networks that compute in a part, the one that passes change first."""
        _ = self.survey.image  # which finds the decoder's
        if self.roles[part] == "condition":
            return self.conditions.components
        if self.roles[part] == "encoder":
            return self._start.components
        role = "denoiser" if self.roles[part] == "shallow" else str(self.roles[part])
        found = self.survey.components.get(role, [])
        return tuple(reversed(found)) if role == "denoiser" else tuple(found)

    def digest(self, part: str) -> str:
        """SHA-256 over the networks that a part is made of, or over a tokenizer."""
        import hashlib  # noqa: PLC0415

        if part in self.survey.readings:
            return self.checkpoint.digest(self.survey.readings[part].tokenizer)
        read = (each.tokenizer for each in self.survey.readings.values()) if self.roles[part] == "text" else ()
        others = (name for name in self.checkpoint.configs if name.endswith("_scheduler"))
        used = [*self.components(part), *dict.fromkeys(read), *others]
        return hashlib.sha256("\n".join(self.checkpoint.digest(name) for name in used).encode()).hexdigest()

    @property
    def driving(self) -> Driving:
        """As the survey saw it."""
        given = {name: value for name, value in self.survey.options.items() if isinstance(value, int | float)}
        step = {name: float(value) for name, value in given.items() if name != "return_dict"}
        needs = ("scale_model_input",) if self.survey.grid.scales else ()
        clean = any(start.clean for start in self.starts.values())
        return Driving(self.survey.name, self.survey.grid.begins, needs, step, self.survey.leveled, clean, self.survey.factor)

    def times(self, steps: int, height: int, width: int) -> dict[str, Any]:
        """Sigmas, times and shift that the pipeline itself hands to its scheduler."""
        found = self.survey.times(height, width, steps)
        return {name: [float(each) for each in value] if hasattr(value, "__len__") else value for name, value in found.items()}

    @property
    def sized(self) -> bool:
        """Whether the pipeline's times depend on the size, and the scheduler looks at them."""
        shapes, steps = self.recipe.shapes, self.recipe.sampler.steps[0]
        first, other = (self.times(steps, shapes.height[1] * each, shapes.width[1] * each) for each in (1, 2))
        shifts = {**self.checkpoint.configs["scheduler"], **self.recipe.sampler.config}
        ignored = set() if shifts.get("use_dynamic_shifting") else {"mu"}
        return any(first[name] != other.get(name) for name in first if name not in ignored)

    @property
    def notes(self) -> Sequence[str]:
        """What is left out."""
        from exporter.families.tracing import left_out, whole_numbers  # noqa: PLC0415 - torch

        used = {name for part in self.roles for name in self.components(part)} | {"scheduler"}
        used |= {reading.tokenizer for reading in self.survey.readings.values()} | self._extractors
        index = self.checkpoint.configs["model_index"]
        used |= whole_numbers.noising(self.survey.pipeline)
        used |= {name for name in index if name.endswith("_scheduler") and self.survey.earlier}  # of a first stage
        found = [*left_out.components(self.survey, index, used), *left_out.abilities(self.survey)]
        return [*found, *self._started[1]]

    @property
    def _extractors(self) -> set[str]:
        """Image processors of transformers, where they prepare a picture."""
        from exporter.families.tracing.pictures import feature_extractors  # noqa: PLC0415 - torch

        shown = any(self.survey.own_sides(name) for name in self.survey.pictures)
        return set(feature_extractors.of(self.survey.pipeline)) if shown else set()

    @property
    def noise_order(self) -> Sequence[int]:
        """The pictures' noise before the latent's, where the pipeline draws them otherwise, or others before them in vain."""
        own = [number for number in (self.conditions.draw, self.survey.drawn) if number is not None]
        return [] if own == list(range(len(own))) else own

    @property
    def start_order(self) -> Mapping[StartsFrom, Sequence[int]]:
        """Those of pipelines that draw noises which change nothing, before or between others."""
        return {given: start.order for given, start in self.starts.items() if list(start.order) != list(range(len(start.order)))}

    @property
    def guidance(self) -> Guidance:
        """The recipe's, and the pipeline's further scales at its own defaults."""
        usual = Guidance.of(self.recipe.sampler.guidance.mode, self.recipe.sampler.guidance.scale)
        always = self.survey.always_guided or isinstance(self.survey.unguided, UnsupportedError)
        off = None if always else self.survey.off
        own = (scale.model_copy(update={} if scale.off is None else {"off": off}) for scale in usual.scales)
        ends = self.survey.following
        others = (
            Scale(name=name, default=value, off=ends.get(name), follows=name in ends)
            for name, value in self.survey.scales.items()
        )
        return Guidance(mode=usual.mode, scales=(*own, *others))

    @property
    def cache_depths(self) -> Sequence[int]:
        """How many of its first blocks can run alone, less one."""
        return self.blocks.depths

    @property
    def blocks(self) -> Blocks:
        """Where its network is cut for step caching; raises RecipeError where it cannot be."""
        return self._blocks

    @cached_property
    def _blocks(self) -> Blocks:
        from exporter.families.tracing.steps import blocks  # noqa: PLC0415 - torch

        shapes = self.recipe.shapes
        steps = self.cells(shapes.height) * self.factor, self.cells(shapes.width) * self.factor
        return blocks.found(self.survey, self.survey.components["denoiser"][-1], shapes, self.factor, steps)

    @property
    def factor(self) -> int:
        """Pixels per latent cell and side."""
        return self.survey.image[0] // self.survey.latent[1]

    def latent_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of the latent for images of height × width pixels."""
        return batch, self.survey.latent[0], height // self.factor, width // self.factor

    # Contracts.

    def signature(self, name: str) -> Signature:
        """Say what goes into one part and what comes out, at the recipe's shapes."""
        from exporter.families.tracing import signatures  # noqa: PLC0415 - torch

        return signatures.signature(self, name)

    def cells(self, lengths: Sequence[int]) -> int:
        """Cells from one size of a side, between these lengths in pixels, to the next."""
        return math.gcd(_CELLS, *(length // self.factor for length in lengths))

    def part(self, name: str, precision: Precision) -> Part:
        """Load the networks of one part at a precision, within the pipeline that runs them."""
        pipeline = self.pipeline(loaded=self.components(name), precision=precision)
        return Part(name, self.roles[name], self.played(name, pipeline), self.signature(name), precision)

    def played(self, part: str, pipeline: Any, depth: int | None = None) -> nn.Module:  # noqa: ANN401 - diffusers'
        """A part as the pipeline's own code, over a pipeline that has its networks; a denoiser is cut at the recipe's depth."""
        from exporter.families.tracing import played_parts, starts  # noqa: PLC0415 - torch

        role, ports = self.roles[part], [port.name for port in self.signature(part).inputs]
        depth = self.recipe.sampler.depth if depth is None else depth
        step = partial(played_parts.PlayedStep, cut=None if depth is None else (self.blocks, depth))
        kinds: Any = {"text": played_parts.PlayedText, "condition": played_parts.PlayedConditions}
        kinds |= {"denoiser": step, "shallow": step}
        encoder = partial(starts.PlayedEncoder, self._start) if self.starts else None
        made: Any = encoder if role == "encoder" else kinds.get(role, played_parts.PlayedDecoder)
        found = made(self.survey, pipeline, self.components(part), ports, self.arguments, self.factor, self.conditions)
        return found.eval()

    # Tokens.

    @property
    def tokenizer_names(self) -> tuple[str, ...]:
        """Every tokenizer of the bundle; a pipeline's that reads the negative prompt in another way counts twice."""
        return tuple(self.survey.readings)

    def tokenizers(self) -> Mapping[str, tuple[Tokenizer, str]]:
        """Per tokenizer: manifest entry, and the text of its `tokenizers` JSON file, which says how it pads."""
        from exporter.families.tracing.texts import tokenizer_files  # noqa: PLC0415 - torch

        readings = self.survey.readings
        return {name: tokenizer_files.written(name, readings[name], self.tokenizer(name)) for name in self.tokenizer_names}

    def tokenizer(self, name: str) -> Any:  # noqa: ANN401 - transformers'
        """One tokenizer as transformers has it, and as the pipeline leaves it."""
        from exporter.families.tracing.texts import text_processors  # noqa: PLC0415 - torch

        return text_processors.tokenizer(getattr(self.survey.pipeline, self.survey.readings[name].tokenizer))

    def literal_ids(self, tower: str, texts: Sequence[str]) -> np.ndarray:  # noqa: ARG002 - none is made
        """Ids of captions, for passes that train: none does here."""
        raise UnsupportedError(f"{tower}: no pass trains on captions for {self.survey.name}.")

    # The source model.

    def pipeline(self, *, loaded: Sequence[str] | None = None, precision: Precision = "fp32") -> Any:  # noqa: ANN401 - diffusers'
        """The pipeline of diffusers; those networks that are not `loaded` are on the meta device, None loads them all."""
        from exporter.families.tracing.pipelines import assemble  # noqa: PLC0415 - torch

        return assemble.pipeline(self.checkpoint, self.recipe.sampler, loaded, precision)

    def replacing(self, *, checkpoint: Checkpoint | None = None, recipe: Recipe | None = None) -> Self:
        """The same family of another checkpoint or recipe."""
        return type(self)(checkpoint or self.checkpoint, recipe or self.recipe)

    def reference(self) -> TracedReference:
        """The source model as diffusers runs it, fp32."""
        from exporter.families.tracing.reference import TracedReference  # noqa: PLC0415 - torch

        return TracedReference(self, self.pipeline())
