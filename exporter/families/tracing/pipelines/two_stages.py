"""Pipelines of two stages: what the first one draws is to the second what other pipelines' encoders of prompts return.

The first stage is sampled within the part that reads the texts, step by step with its own scheduler, and its noise is an input.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from engines.errors import UnsupportedError
from exporter.families.tracing.following.dry_run import encoder_of, names_of
from exporter.families.tracing.following.standins import stand_in
from exporter.families.tracing.pipelines.tabled_steps import looked_up, tabled

#: The input that is the first stage's noise, and what such stages' components and arguments are called by.
NOISE, PREFIX = "prior_noise", "prior_"
_STAGES = ("prior_pipe", "decoder_pipe")
_ANSWERS = "_earlier_noise"
#: What an encoder of prompts calls what it returns of negative ones.
_NEGATIVE = re.compile("negative|uncond")
#: Where a class keeps the one that it was made of.
_WHOLE = "_of_two_stages"


class EarlierNoise(TorchFunctionMode):
    """Within it every noise is the next of those that are `given`, (pictures, draws, …), or 0.

    Attributes:
        shapes: of the noises, as they were asked for.

    """

    def __init__(self, given: Tensor | None = None) -> None:
        super().__init__()
        self._given, self.shapes = given, list[tuple[int, ...]]()

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") != "randn":
            return func(*args, **kwargs)
        size = kwargs.get("size", args)
        shape = tuple(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
        self.shapes.append(shape)
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        if self._given is None:
            return torch.zeros(shape, dtype=dtype)
        return self._given[0, len(self.shapes) - 1].reshape(shape).to(dtype)

    def of_a_picture(self, where: str) -> tuple[int, ...]:
        """How many there were, and the shape of each; () of none.

        Raises:
            UnsupportedError: they are of several shapes.

        """
        if len(set(self.shapes)) > 1:
            raise UnsupportedError(f"{where}: its first stage draws noises of several shapes, which is not built.")
        return (len(self.shapes), *self.shapes[0]) if self.shapes else ()


def answered(noise: Tensor | None) -> dict[str, EarlierNoise]:
    """What is placed into a pipeline so that its first stage draws these noises, (1, draws, …); or 0."""
    return {_ANSWERS: EarlierNoise(noise)}


def asked(pipeline: Any) -> EarlierNoise | None:  # noqa: ANN401 - of diffusers
    """What was placed so into a pipeline."""
    return vars(pipeline).get(_ANSWERS)


def staged(pipeline: Any) -> Any:  # noqa: ANN401 - of diffusers
    """A pipeline of two stages with the first as its encoder of prompts; any other as it is."""
    if not all(name in vars(pipeline) for name in _STAGES):
        return pipeline
    earlier, later = (vars(pipeline)[name] for name in _STAGES)
    _refuse_both(type(pipeline).__name__, type(later))
    encoder = encoder_of(later)
    processors = {name: each for name, each in vars(later).items() if isinstance(each, VaeImageProcessor)}

    def encode_prompt(self: Any, *args: Any, _second: bool = False, **given: Any) -> Any:  # noqa: ANN401
        """Sample the first stage, or encode for the second, which may read texts with an encoder of its own."""
        if _second:
            read = getattr(stage(self, later, ""), encoder)
            bound = inspect.signature(read).bind(*args, **given).arguments
            # One, of each prompt: Würstchen hands on how many pictures there are.
            return read(**{**bound, "num_images_per_prompt": 1})
        own = stage(self, earlier, PREFIX, progress_bar=lambda times: times)
        own.__dict__["scheduler"] = in_numbers(own.scheduler)
        with vars(self).get(_ANSWERS) or EarlierNoise():
            return inspect.unwrap(type(own).__call__)(own, **given)

    def prior_pipe(self: Any) -> Callable[..., Any]:  # noqa: ANN401
        return self.encode_prompt

    def decoder_pipe(self: Any) -> Any:  # noqa: ANN401 - a pipeline of diffusers
        hooks = {name: vars(self)[name] for name in ("progress_bar", "check_inputs", *processors) if name in vars(self)}
        if encoder:
            own_texts = functools.partial(self.encode_prompt, _second=True)
            hooks[encoder] = functools.partial(_read, getattr(type(later), encoder), own_texts)
        own = stage(self, later, "", **hooks)
        return stand_in(own, __call__=inspect.unwrap(type(own).__call__))

    stages = {"prior_pipe": property(prior_pipe), "decoder_pipe": property(decoder_pipe)}
    found = stand_in(pipeline, encode_prompt=encode_prompt, **stages, **{_WHOLE: type(pipeline)})
    found.__dict__.update(processors)  # of pictures that the second stage starts from
    return found


def _refuse_both(name: str, later: type) -> None:
    """Raise UnsupportedError where a second stage with a mask has it at every step, and shows it to its network too."""
    takes = inspect.signature(inspect.unwrap(later.__call__)).parameters
    if "mask_image" in takes and "strength" not in takes and "add_noise" in inspect.getsource(later):
        raise UnsupportedError(
            f"{name} puts back what its mask keeps after every step, and shows its network picture and mask as well. "
            "A bundle does one of both.\n  This is a gap in t2iexport."
        )


def _read(own: Callable[..., Any], encode: Callable[..., Any], *args: Any, **given: Any) -> Any:  # noqa: ANN401
    """What a second stage's `own` encoder of prompts returns: nothing under the names of negative ones, without guidance."""
    found = encode(*args, **given)
    bound = inspect.signature(own).bind(None, *args, **given).arguments
    if bound.get("do_classifier_free_guidance", True):
        return found
    names = names_of(own, len(found))
    return tuple(None if _NEGATIVE.search(name) else each for name, each in zip(names, found, strict=True))


def whole(kind: Any) -> Any:  # noqa: ANN401 - a class of pipelines
    """The class as diffusers has it."""
    return getattr(kind, _WHOLE, kind)


def last(pipeline: Any) -> Any:  # noqa: ANN401 - of diffusers
    """The stage that draws the picture: the pipeline itself where it has one stage."""
    return getattr(pipeline, _STAGES[1], pipeline)


def stage(own: Any, real: Any, prefix: str, **hooks: Any) -> Any:  # noqa: ANN401
    """One stage, a pipeline of diffusers, over the components that the whole pipeline has now, under names with a prefix."""
    found = stand_in(real, _execution_device=torch.device("cpu"))
    found.__dict__.update({name: getattr(own, prefix + name) for name in real.components if hasattr(own, prefix + name)})
    found.__dict__.update(hooks)
    return found


def in_numbers(real: Any) -> Any:  # noqa: ANN401 - a scheduler of diffusers
    """The same scheduler with times that are numbers, as its steps are unrolled: none of them is an input of the graph."""
    real = copy.copy(real)
    if looked_up(real):
        return tabled(real, _apart)

    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        with _apart():
            real.set_timesteps(*args, **kwargs)
            vars(self).update(vars(real), timesteps=real.timesteps.numpy())

    return stand_in(real, set_timesteps=set_timesteps)


@contextmanager
def _apart() -> Iterator[None]:
    """Within it tensors are none of a graph that is being made."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():  # noqa: SLF001
        yield
