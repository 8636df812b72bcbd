"""Prompts → pictures: tokenize, encode, sample, decode. Names are the wiring, so every model takes this one path."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from pydantic import ValidationError

from engines import plugins
from engines.backends import Backend
from engines.bundle import Bundle, PartEntry
from engines.errors import BundleError, MissingDependency, UnsupportedError
from engines.frozen import describe
from engines.picture import picture
from engines.samplers import Draw, OnStep, Sampler
from engines.tokenizer import TextTokenizer

#: A network that is ready to run: an engine, or in a test any function.
Network = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
#: `wrap(part, backend, network)`: what to call instead of a network, such as one that takes its time.
Wrap = Callable[[str, str, Network], Network]
_SEEDS = 2**64


class Pipeline:
    """A bundle at work.

    Attributes:
        bundle: what is played.
        sizes: per axis, height then width: smallest and largest picture in pixels, and the step between.

    """

    def __init__(self, bundle: Bundle, networks: Mapping[str, Network]) -> None:
        """Play `bundle` on opened networks, one per text part, denoiser and decoder, by the part's name."""
        self.bundle, self._networks = bundle, networks
        manifest = bundle.manifest
        ((self._denoiser, denoiser),) = manifest.having("denoiser").items()
        ((self._decoder, decoder),) = manifest.having("decoder").items()
        self._tokenizers = [
            (TextTokenizer(bundle.path(entry.file), entry.length), entry.feeds)
            for _, entry in sorted(manifest.tokenizers.items())
        ]
        self._channels = denoiser.signature.lengths(_axes(denoiser, "latent")[1])[0]
        self._factors: list[int] = []
        self.sizes: list[tuple[int, int, int]] = []
        for latent_axis, image_axis in ((2, 1), (3, 2)):
            image = decoder.signature.lengths(_axes(decoder, "image")[image_axis])
            factor = image[0] // decoder.signature.lengths(_axes(decoder, "latent")[latent_axis])[0]
            latent = denoiser.signature.lengths(_axes(denoiser, "latent")[latent_axis])
            low, high, step = (length * factor for length in latent)
            if not factor or max(low, image[0]) > min(high, image[1]):
                raise BundleError(f"{bundle.folder}: no picture size fits both denoiser and decoder. Build the bundle again.")
            self._factors.append(factor)
            self.sizes.append((max(low, image[0]), min(high, image[1]), math.lcm(step, image[2])))

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path | str,
        backend: str | None = None,
        *,
        wrap: Wrap = lambda _part, _backend, network: network,
        **options: Any,  # noqa: ANN401 - the backend's
    ) -> Generator[Self]:
        """Open a bundle's engines, and close them at the end of the `with`.

        Args:
            path: the bundle's folder.
            backend: which of its engines; by default onnxruntime's, or else the first whose library is here.
            wrap: what to call instead of each network, for those who watch.
            options: fields of the backend, instead of those that its engines were built with.

        Raises:
            BundleError: the bundle is damaged.
            UnsupportedError: it has no such engines, or they do not run here.
            MissingDependency: the backend's library is not installed.

        """
        bundle = Bundle.open(path)
        needed = {name: part for name, part in bundle.manifest.parts.items() if part.role != "encoder"}
        networks: dict[str, Network] = {}
        *first, last = _backends(needed, backend)
        with ExitStack() as stack:
            for chosen in (*first, last):
                try:
                    for name, part in needed.items():
                        files = [bundle.path(file) for file in part.engines[chosen].files]
                        engine = _configure(chosen, {**part.engines[chosen].options, **options}).open(files, part.signature)
                        networks[name] = wrap(name, chosen, stack.enter_context(engine))
                    break
                except MissingDependency:
                    if chosen == last:
                        raise
            yield cls(bundle, networks)

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        negative_prompt: str = "",
        seed: int = 0,
        steps: int | None = None,
        height: int | None = None,
        width: int | None = None,
        guidance_scale: float | None = None,
        noise: Iterable[np.ndarray] | None = None,
        on_step: OnStep | None = None,
    ) -> list[Image.Image]:
        """Make one picture per prompt.

        The same seed gives other pictures than diffusers does; the same noise gives the same.

        Args:
            prompts: one text or several.
            negative_prompt: what to stay away from; only where guidance is classifier-free.
            seed: of the first picture; picture i is that of seed + i alone, whatever the batch.
            steps: of the sampler; must be among those that were compiled.
            height: in pixels, within `sizes`.
            width: in pixels, within `sizes`.
            guidance_scale: of the guidance that was compiled in.
            noise: draws to use instead of the seed's, float32 (pictures, channels, latent height, latent width) each;
                a sampler that draws once takes the bare array too.
            on_step: called after every step.

        Returns:
            Pictures, whose `info` says how they were made.

        Raises:
            UnsupportedError: the bundle cannot do what is asked; the text says what it can.

        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            return []
        defaults, guidance = self.bundle.manifest.defaults, self.bundle.manifest.guidance
        steps = defaults.steps if steps is None else steps
        height, width = defaults.height if height is None else height, defaults.width if width is None else width
        size = len(prompts), height, width
        sampler = self.sampler(steps, height, width)  # first, because it refuses what cannot be had
        draw = self.seeded(seed, *size) if noise is None else self.given(noise, *size)
        ids, unread = self._tokenize(prompts, negative_prompt)
        images = self.decode(self.sample(self._encode(ids), draw, sampler, guidance_scale, on_step))
        scale = guidance.scale if guidance_scale is None else guidance_scale
        facts = {"steps": str(steps), "bundle": self.bundle.manifest.name, "digest": self.bundle.manifest.digest}
        facts |= {"negative_prompt": negative_prompt} if negative_prompt else {}
        facts |= {} if scale is None else {"guidance_scale": f"{scale:g}"}
        pictures: list[Image.Image] = []
        for index, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
            own = {"prompt": prompt, "seed": str(seed + index) if noise is None else "none; noise was given"}
            own |= {"prompt_not_read": unread[index]} if unread[index] else {}
            pictures.append(picture(image, {**own, **facts}))
        return pictures

    def encode(self, prompts: Sequence[str], negative_prompt: str = "") -> dict[str, np.ndarray]:
        """Return the conditioning by name: float32 (prompts, branches, …), the negative branch first where there are two."""
        return self._encode(self._tokenize(prompts, negative_prompt)[0])

    def _tokenize(self, prompts: Sequence[str], negative_prompt: str) -> tuple[dict[str, np.ndarray], list[str]]:
        """Ids by the input they feed, int64 (prompts, branches, length), and per prompt what was too long to be read."""
        branches = self.bundle.manifest.guidance.branches
        if negative_prompt and branches == 1:
            mode = self.bundle.manifest.guidance.mode
            raise UnsupportedError(f"guidance is {mode!r}, so a negative prompt has no effect. Leave it out.")
        texts = [text for prompt in prompts for text in (negative_prompt, prompt)[-branches:]]
        ids, unread = dict[str, np.ndarray](), [""] * len(prompts)
        for tokenizer, feeds in self._tokenizers:
            rows, cuts = tokenizer.encode(texts)
            ids[feeds] = rows.reshape(len(prompts), branches, -1)
            unread = [max(before, cut, key=len) for before, cut in zip(unread, cuts[branches - 1 :: branches], strict=True)]
        return ids, unread

    def _encode(self, ids: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        conditioning: dict[str, np.ndarray] = {}
        for name in self.bundle.manifest.text_order():
            conditioning.update(self._run(name, {**ids, **conditioning}))
        return conditioning

    def sampler(self, steps: int, height: int, width: int) -> Sampler:
        """Load the sampler of that many steps for that size in pixels, or say which there are."""
        for axis, length, (low, high, step) in zip(("height", "width"), (height, width), self.sizes, strict=True):
            if not low <= length <= high or length % step:
                allowed = f"{low} to {high} in steps of {step}" if low < high else str(low)
                raise UnsupportedError(f"{axis} {length}: this bundle makes pictures of {axis} {allowed} pixels.")
        entries = self.bundle.manifest.samplers
        for size in ((height, width), (None, None)):
            for entry in entries:
                if (entry.steps, entry.height, entry.width) == (steps, *size):
                    return plugins.load("samplers", entry.kind).load(self.bundle.path(entry.file))
        have = ", ".join(f"{entry.steps}" + (f" at {entry.height}x{entry.width}" if entry.height else "") for entry in entries)
        raise UnsupportedError(
            f"no sampler of {steps} steps for {height}x{width} in this bundle; there are: {have}. "
            f"Add one with: t2iexport build RECIPE --set sampler.steps=[{steps}]"
        )

    def sample(
        self,
        conditioning: Mapping[str, np.ndarray],
        draw: Draw,
        sampler: Sampler,
        guidance_scale: float | None = None,
        on_step: OnStep | None = None,
    ) -> np.ndarray:
        """Return the final latent, float32 (pictures, channels, latent height, latent width)."""
        guidance = self.bundle.manifest.guidance
        if guidance_scale is not None and guidance.mode == "none":
            raise UnsupportedError("this bundle was built without guidance, so it takes no guidance scale. Leave it out.")
        scale = guidance.scale if guidance_scale is None else guidance_scale
        if not math.isfinite(scale or 0):
            raise UnsupportedError(f"guidance scale {scale} is not a number to multiply by. Give a finite one.")
        (output,) = self.bundle.manifest.parts[self._denoiser].signature.outputs

        def denoise(latent: np.ndarray, timestep: float | np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
            times, scales = (np.full(len(latent), value, np.float32) for value in (timestep, scale or 0))
            own = conditioning if which is None else {name: array[which] for name, array in conditioning.items()}
            pool = {**own, "latent": latent, "timestep": times, "guidance_scale": scales}
            return self._run(self._denoiser, pool)[output.name]

        return sampler.play(denoise, draw, on_step)

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """Return images, float32 (pictures, height, width, 3) in [0, 1]."""
        return self._run(self._decoder, {"latent": latent})["image"]

    def seeded(self, seed: int, count: int, height: int, width: int) -> Draw:
        """Return noise from one Philox stream per picture, keyed seed, seed + 1 …; the size is in pixels."""
        if not 0 <= seed <= _SEEDS - count:
            raise UnsupportedError(f"seed {seed} is out of range. Use 0 to {_SEEDS - count}.")
        streams = [np.random.Generator(np.random.Philox(key=seed + index)) for index in range(count)]
        shape = self._latent(count, height, width)[1:]
        return lambda: np.stack([stream.standard_normal(shape, np.float32) for stream in streams])

    def given(self, noise: Iterable[np.ndarray], count: int, height: int, width: int) -> Draw:
        """Return the caller's own draws, checked against the size in pixels."""
        draws: Iterable[np.ndarray] = [np.asarray(noise)] if getattr(noise, "ndim", 0) == 4 else noise
        source, shape = enumerate(draws, 1), self._latent(count, height, width)

        def draw() -> np.ndarray:
            index, array = next(source, (0, None))
            if array is None:
                raise UnsupportedError("this sampler draws more noise than was given. Give one array per draw of its table.")
            if array.shape != shape or array.dtype != np.float32:
                raise UnsupportedError(f"noise {index} must be float32 {list(shape)}, got {array.dtype} {list(array.shape)}.")
            return array

        return draw

    def _latent(self, count: int, height: int, width: int) -> tuple[int, int, int, int]:
        return count, self._channels, height // self._factors[0], width // self._factors[1]

    def _run(self, name: str, pool: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one part on what it takes of the pool, in batches that it can take; a short last one is filled up and cut."""
        signature = self.bundle.manifest.parts[name].signature
        inputs = {port.name: pool[port.name] for port in signature.inputs}
        low, high, step = signature.lengths(signature.inputs[0].shape[0])
        count, results = len(next(iter(inputs.values()))), list[dict[str, np.ndarray]]()
        for start in range(0, count, high):
            size = min(high, count - start)
            rows = np.minimum(np.arange(start, start + max(low, -(-size // step) * step)), count - 1)
            whole = len(rows) == count
            outputs = self._networks[name](inputs if whole else {key: array[rows] for key, array in inputs.items()})
            results.append({key: array[:size] for key, array in outputs.items()})
        return {key: np.concatenate([result[key] for result in results]) for key in results[0]}


def _axes(part: PartEntry, name: str) -> tuple[Any, ...]:
    port = part.signature.port(name)
    return port.shape if port else ()


def _backends(parts: Mapping[str, PartEntry], wanted: str | None) -> list[str]:
    """Name the backends to try, in order: those that every part has engines of."""
    common = sorted(set[str].intersection(*(set(part.engines) for part in parts.values())))
    common.sort(key=lambda name: name != "onnxruntime")
    if not common or (wanted and wanted not in common):
        raise UnsupportedError(
            f"this bundle has no engines of {wanted or 'one backend for all parts'}; it has {', '.join(common) or 'none'}. "
            "Build them with: t2iexport rebuild BUNDLE"
        )
    return [wanted] if wanted else common


def _configure(name: str, options: Mapping[str, Any]) -> Backend:
    try:
        return plugins.load("backends", name)(**options)
    except ValidationError as error:
        raise UnsupportedError(f"{name} does not take these options:\n{describe(error)}") from error
