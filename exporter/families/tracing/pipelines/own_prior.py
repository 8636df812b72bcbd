"""Pipelines whose own call samples a first stage, a prior, before it draws: unCLIP's embedding of the picture of a text.

The prior is sampled by what encodes prompts, as in pipelines that are made of two; the rest of the call is given what it left.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from exporter.families.tracing.following.standins import stand_in
from exporter.families.tracing.pipelines.one_text import plain
from exporter.families.tracing.pipelines.two_stages import EarlierNoise, asked, in_numbers, stage

#: What shows that a pipeline's call is of this kind, and what it calls the end of its first stage.
_PRIOR, _END = "_encode_prior_prompt", "noise_image_embeddings"
#: Arguments of its call that are the first stage's, and how far the embedding is noised.
_EARLIER = ("prior_num_inference_steps", "prior_guidance_scale", "noise_level")
#: Where a class keeps that its call is divided, and sides in pixels of what is not drawn.
_DIVIDED, _SIDE = "_prior_apart", 8


class _Embedded(BaseException):  # an event; and no pipeline shall catch it
    """The first stage has ended, and its embedding, noised, is `found`."""

    def __init__(self, found: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.found = found


def has_own_prior(pipeline: Any) -> bool:  # noqa: ANN401 - of diffusers
    """Whether its call samples a first stage that is divided from it here."""
    return hasattr(type(pipeline), _DIVIDED)


def divided(pipeline: Any) -> Any:  # noqa: ANN401 - of diffusers
    """Such a pipeline with its first stage within its encoder of prompts; any other as it is."""
    kind = type(pipeline)
    if not (hasattr(kind, _PRIOR) and hasattr(kind, _END) and hasattr(kind, "encode_prompt")):
        return pipeline
    call = inspect.unwrap(kind.__call__)

    def encode_prompt(self: Any, *, do_classifier_free_guidance: bool, **given: Any) -> tuple[Any, ...]:  # noqa: ANN401
        """Both embeddings of the prompts, and the noised one of the picture."""
        found = list[Any]()

        def encode(_stage: Any, **words: Any) -> Any:  # noqa: ANN401 - as diffusers has it
            found.extend(kind.encode_prompt(_stage, **words))
            return found

        def end(_stage: Any, **words: Any) -> None:  # noqa: ANN401
            raise _Embedded(getattr(kind, _END)(_stage, **words))

        earlier = stage(self, stand_in(pipeline, encode_prompt=encode, **{_END: end}), "", progress_bar=lambda times: times)
        earlier.__dict__.update(prior_scheduler=in_numbers(earlier.prior_scheduler), check_inputs=lambda *_, **__: None)
        words = {name: plain(given[name]) for name in ("prompt", "negative_prompt", "clip_skip", *_EARLIER) if name in given}
        scale = 2.0 if do_classifier_free_guidance else 1.0
        with asked(self) or EarlierNoise():
            try:
                call(earlier, **words, guidance_scale=scale, height=_SIDE, width=_SIDE, generator=torch.Generator())
            except _Embedded as event:
                (prompt_embeds, negative_prompt_embeds), image_embeds = found, event.found
            else:
                raise RuntimeError(f"{kind.__name__} draws without an embedding of its own")
        return prompt_embeds, negative_prompt_embeds, image_embeds

    def drawn(self: Any, **given: Any) -> Any:  # noqa: ANN401
        """The call behind the first stage."""
        own = {name: given.pop(name) for name in _EARLIER if name in given}
        embedded, nothing = list[Any](), list[Any]()

        def encode(_stage: Any, **words: Any) -> Any:  # noqa: ANN401
            *found, embedding = self.encode_prompt(**words, **own)
            embedded.append(embedding)
            return found

        def latents(_stage: Any, shape: Any, *args: Any, **words: Any) -> Any:  # noqa: ANN401
            return None if len(shape) == 2 else kind.prepare_latents(_stage, shape, *args, **words)

        bar: Callable[..., Any] = self.progress_bar
        scheduler = SimpleNamespace(set_timesteps=lambda *_, **__: None, timesteps=nothing, step=lambda: None)
        prior = SimpleNamespace(config=self.prior.config, post_process_latents=lambda found: found)
        methods = {_PRIOR: lambda *_, **__: (torch.zeros(1), None, None), _END: lambda *_, **__: embedded[0]}
        later = stage(
            self, stand_in(pipeline, encode_prompt=encode, prepare_latents=latents, **methods), "",
            progress_bar=lambda times: times if times is nothing else bar(times),
        )  # fmt: skip
        later.__dict__.update(prior_scheduler=scheduler, prior=prior)
        later.__dict__.update({name: vars(self)[name] for name in ("check_inputs",) if name in vars(self)})
        return call(later, **given)

    drawn.__signature__ = inspect.signature(call)  # type: ignore[attr-defined]
    return stand_in(pipeline, encode_prompt=encode_prompt, __call__=drawn, **{_DIVIDED: True})
