"""What is asked for, one of each per picture, and checked against what the bundle takes before a network runs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from engines.errors import UnsupportedError
from engines.feed import Feed
from engines.guidance import PERTURBED, USUAL
from engines.images import init_latent
from engines.lora.choice import LoraChoice, Wish, chosen
from engines.manifest import Draft, Generator
from engines.plugins import did_you_mean

#: Keys of random streams: what Philox takes.
_SEEDS = 2**64
#: As a seed: any. Below it a random seed is drawn, small enough to be typed again.
_ANY, _TYPED = -1, 2**32
#: What `--input` and `inputs` may name where the bundle starts from an image, beside its own inputs.
_START = ("image", "mask", "strength")
#: What of that, and of latents to go on from, there is one of for all pictures.
_BETWEEN = "denoising_start"
_ONE = ("strength", _BETWEEN)


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        prompts: one per picture; so are `negative_prompts` and `seeds`.
        seconds: `prompt_2` and `negative_prompt_2` per picture, those that are given.
        generator: whose noise the seeds are.
        scales: every guidance scale's value per picture, by name.
        feed: what the bundle's own inputs are fed.
        start: `image` and `mask` per picture, and `strength`, of pictures to start from, or `denoising_start` of latents, which
            `image` then is; None where not given.
        loras: each with a scale per picture.
        denoising_end: share of the noise's way at which to stop; None is its end.

    """

    prompts: list[str]
    negative_prompts: list[str]
    seconds: dict[str, list[str]]
    seeds: list[int]
    generator: Generator
    scales: dict[str, list[float]]
    feed: Feed
    start: Mapping[str, Any]
    loras: Sequence[LoraChoice] = ()
    denoising_end: float | None = None

    @classmethod
    def of(
        cls,
        manifest: Draft,
        prompts: str | Sequence[str],
        images_per_prompt: int,
        *,
        negative_prompt: str | Sequence[str],
        seed: int | Sequence[int],
        generator: Generator | None,
        inputs: Mapping[str, Any] | None,
        seconds: Mapping[str, str | Sequence[str] | None] | None = None,
        loras: Sequence[Wish] = (),
        **arguments: Any,  # noqa: ANN401 - scale, pictures and strength, as `Pipeline.generate` takes them
    ) -> Request:
        """Spread what is asked for over the pictures; `arguments` may also stand among the `inputs`, by their names.

        Raises:
            UnsupportedError: the bundle takes nothing of a name, a number is out of range, or a list has another length.

        """
        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        if images_per_prompt < 1:
            raise UnsupportedError(f"{images_per_prompt} images per prompt are none. Ask for 1 or more.")
        scales = [scale.name for scale in manifest.guidance.scales]
        given = _named(arguments, inputs or {}, [*manifest.inputs, *scales, *(_START if manifest.with_role("encoder") else ())])

        def each(name: str, value: Any) -> list[Any]:  # noqa: ANN401 - numbers, texts or pictures
            return spread(name.replace("_", " "), value, len(asked), images_per_prompt)

        steered = {name: value for name, value in given.items() if name in {USUAL, PERTURBED, *scales}}
        start = {name: None if name in manifest.inputs else given.get(name) for name in (*_START, _BETWEEN)}
        start["image"] = init_latent.each(start["image"])
        if "image" in manifest.inputs and (loose := [name for name, value in start.items() if value is not None]):
            raise UnsupportedError(f"this bundle's image is a condition, and nothing starts from it. Leave {loose[0]} out.")
        return cls(
            prompts=each("prompt", asked),
            negative_prompts=each("negative prompt", negative_prompt),
            seconds={name: each(name, texts) for name, texts in (seconds or {}).items() if texts},
            seeds=seeds(seed, len(asked), images_per_prompt),
            generator=generator or manifest.defaults.generator,
            scales={name: each(name, value) for name, value in manifest.guidance.chosen(steered).items()},
            feed=Feed(manifest.inputs, {name: each(name, given.get(name)) for name in manifest.inputs}),
            start={name: value if value is None or name in _ONE else each(name, value) for name, value in start.items()},
            loras=chosen(loras, each),
            denoising_end=_end(given.get("denoising_end"), start[_BETWEEN]),
        )

    def facts(self, index: int, noise: str | None) -> dict[str, str]:
        """What one picture says of how it was asked for; `noise` is the SHA-256 of its noise where that was given."""
        facts = {"prompt": self.prompts[index]}
        facts |= {"seed": str(self.seeds[index]), "generator": self.generator} if noise is None else {"noise_sha256": noise}
        facts |= {"negative_prompt": self.negative_prompts[index]} if self.negative_prompts[index] else {}
        facts |= {name: texts[index] for name, texts in self.seconds.items() if texts[index]}
        for name, values in self.scales.items():
            facts[name if name == USUAL else f"input_{name}"] = repr(float(values[index]))
        facts |= self.feed.facts(index)
        facts |= {"denoising_end": repr(float(self.denoising_end))} if self.denoising_end else {}
        return facts | ({"batch": f"{index + 1} of {len(self.prompts)}"} if len(self.prompts) > 1 else {})


def _named(arguments: Mapping[str, Any], inputs: Mapping[str, Any], known: list[str]) -> dict[str, Any]:
    """Everything that was given, by name; raise UnsupportedError for a name that is not known, or that is given twice."""
    for name in inputs:
        if name not in known:
            raise UnsupportedError(f"this bundle has no input {name!r}{did_you_mean(name, known) if known else ': it has none.'}")
    given = {name: value for name, value in arguments.items() if value is not None}
    if twice := sorted(set(given) & set(inputs)):
        raise UnsupportedError(f"{twice[0]} is given twice, by its own argument and among the inputs. Leave one out.")
    return {**inputs, **given}


def _end(end: float | None, start: float | None) -> float | None:
    """Where to stop; None at the end. Raise UnsupportedError for a number that is no such share, or not behind the start."""
    if end is None or end == 1:
        return None
    if not 0 < end < 1:  # also refuses NaN
        raise UnsupportedError(f"denoising_end {end:g} is out of range. Give a number between 0 and 1, such as 0.8.")
    if start is not None and not start < end:
        raise UnsupportedError(f"denoising_start {start:g} is not before denoising_end {end:g}. Give a smaller one.")
    return end


def spread(what: str, value: Any, prompts: int, each: int) -> list[Any]:  # noqa: ANN401 - numbers, texts or pictures
    """One value per picture, of one for all, one a prompt, or one a picture; raise UnsupportedError for any other number."""
    if not isinstance(value, list | tuple):
        return [value] * (prompts * each)
    values = list(cast("Sequence[Any]", value))
    if len(values) == 1:
        return values * (prompts * each)
    if len(values) == prompts * each:
        return values
    if len(values) == prompts:
        return [one for one in values for _ in range(each)]
    raise UnsupportedError(
        f"{len(values)} {what}s for {prompts} prompts of {each} pictures each. Give one for all, one a prompt, or one a picture."
    )


def seeds(wanted: int | Sequence[int], prompts: int, each: int) -> list[int]:
    """A seed per picture: of one, its successors; of one a prompt, their successors. -1 is a random one.

    Raises:
        UnsupportedError: a seed is out of range, or there are too many or too few.

    """
    count = prompts * each
    if isinstance(wanted, int) or len(wanted) == 1:
        first = _seed(wanted if isinstance(wanted, int) else wanted[0], count)
        return list(range(first, first + count))
    run = each if len(wanted) == prompts else 1
    starts = spread("seed", list(wanted), prompts, each)[::run]
    return [first + offset for first in (_seed(start, run) for start in starts) for offset in range(run)]


def _seed(seed: int, count: int) -> int:
    if seed == _ANY:
        return secrets.randbelow(_TYPED)
    if not 0 <= seed <= _SEEDS - count:
        raise UnsupportedError(f"seed {seed} is out of range. Use 0 to {_SEEDS - count}, or -1 for a random one.")
    return seed
