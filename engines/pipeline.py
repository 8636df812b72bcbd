"""Prompts → pictures: tokenize, encode, sample, decode. Names are the wiring, so every model takes this one path."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from engines import plugins, sessions
from engines.bundle import Bundle, PartEntry, SamplerEntry
from engines.errors import BundleError, UnsupportedError
from engines.images import noises, provenance, tiling
from engines.images.init_image import Original
from engines.images.png import picture
from engines.parallel.picard import Parallel, Picard
from engines.sampler_parse import solver
from engines.samplers import Draw, OnStep, Player, Sampler
from engines.sessions import Network, Wrap, in_turn, turn
from engines.tokenizer import TextTokenizer


class Pipeline:
    """A bundle at work, for as many threads as like: each call's images are those that it makes alone.

    ONNX Runtime on a CPU runs calls side by side; else one network's run in turn, and under `low_memory` whole images do.

    Attributes:
        bundle: what is played.
        engine: backend and version, such as `onnxruntime 1.31.1`; empty where the networks are the caller's own.
        sizes: per axis, height then width: smallest and largest picture in pixels, and the step between.

    """

    def __init__(
        self, bundle: Bundle, networks: Mapping[str, Network], engine: str = "", denoisers: Sequence[Network] = ()
    ) -> None:
        """Play `bundle` on opened networks, by the part's name; pictures say that `engine` made them.

        `denoisers` are more of the denoiser's networks, of other devices; each batch of it is split between all of them.
        """
        self.bundle, self.engine = bundle, engine
        self.turn = turn(bundle.manifest)
        manifest = bundle.manifest
        ((self._denoiser, denoiser),) = manifest.having("denoiser").items()
        self._networks = {name: [network] for name, network in networks.items()}
        self._networks.get(self._denoiser, []).extend(denoisers)  # a fused bundle has none
        ((self._decoder, decoder),) = manifest.having("decoder").items()
        self._encoder = next(iter(manifest.having("encoder")), None)
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
            top = high if decoder.tile else min(high, image[1])
            if not factor or max(low, image[0]) > top:
                raise BundleError(f"{bundle.folder}: no picture size fits both denoiser and decoder. Build the bundle again.")
            self._factors.append(factor)
            self.sizes.append((max(low, image[0]), top, math.lcm(step, image[2])))

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path | str,
        backend: str | None = None,
        *,
        wrap: Wrap = sessions.unwrapped,
        devices: int = 1,
        **options: Any,  # noqa: ANN401 - the backend's
    ) -> Generator[Self]:
        """Open a bundle's engines, and close them at the end of the `with`.

        Args:
            path: the bundle's folder.
            backend: which of its engines; by default onnxruntime's, or else the first whose library is here. A part that has
                only another one's runs on that.
            wrap: what to call instead of each network, for those who watch.
            devices: how often to open the denoiser, for parallel sampling: on device 0, 1 … where the backend has the option
                `device`, else that many times on the one that it runs on.
            options: fields of the backend, instead of those that its engines were built with.

        Raises:
            BundleError: the bundle is damaged.
            UnsupportedError: it has no such engines, or they do not run here.
            MissingDependency: the backend's library is not installed.

        """
        bundle = Bundle.open(path)
        with sessions.opened(bundle, backend, options, wrap, devices) as (found, engine, denoisers):
            yield cls(bundle, found, engine, denoisers)

    @in_turn
    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        negative_prompt: str = "",
        seed: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        height: int | None = None,
        width: int | None = None,
        guidance_scale: float | None = None,
        noise: Iterable[np.ndarray] | None = None,
        image: Image.Image | None = None,
        mask: Image.Image | None = None,
        strength: float | None = None,
        on_step: OnStep | None = None,
        parallel: Picard | None = None,
    ) -> list[Image.Image]:
        """Make one picture per prompt, from noise or from an image.

        The same seed gives other pictures than diffusers does; the same noise gives the same.

        Args:
            prompts: one text or several.
            negative_prompt: what to stay away from; only where guidance is classifier-free.
            seed: of the first picture; picture i is that of seed + i alone, whatever the batch.
            steps: of the sampler; must be among those that were compiled.
            sampler: instead of a compiled one, such as `adaptive:relative=0.1,absolute=0.1`; it chooses its own steps.
            height: in pixels, within `sizes`.
            width: in pixels, within `sizes`.
            guidance_scale: of the guidance that was compiled in.
            noise: draws to use instead of the seed's, float32 (pictures, channels, latent height, latent width) each;
                a sampler that draws once takes the bare array too. With an image, the first is for its encoder.
            image: to start from instead of noise alone; its size is the pictures', unless another is given, which it takes.
            mask: of the image's size: white is made anew, black keeps the image's pixels exactly.
            strength: how much of the image may change, above 0 and up to 1: the share of the steps that is taken. Left out
                it is 0.8, or 1 with a mask.
            on_step: called after every step; what it raises ends the sampling and is raised here. A fused pipeline has none.
            parallel: evaluate several steps of a picture in one batch of the denoiser.

        Returns:
            Pictures, whose `info` says how they were made.

        Raises:
            UnsupportedError: the bundle cannot do what is asked; the text says what it can.

        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            return []
        if sampler is not None and steps is not None:
            raise UnsupportedError(f"steps {steps} are those of a compiled sampler; {sampler!r} has its own. Leave one out.")
        if sampler is not None and parallel is not None:
            raise UnsupportedError(f"only compiled samplers run in parallel; {sampler!r} is none. Leave one out.")
        original = self.original(image, mask, strength, height, width)
        defaults = self.bundle.manifest.defaults
        steps = defaults.steps if steps is None else steps
        if original:
            height, width = original.size
        height, width = defaults.height if height is None else height, defaults.width if width is None else width
        size = len(prompts), height, width
        # First, because it refuses what cannot be had.
        if sampler is None:
            compiled = self.sampler(steps, height, width, original)
            player = parallel.over(compiled) if parallel else compiled
        else:
            player = self.solver(sampler, height, width)
        draw, used = noises.hashed(self.seeded(seed, *size) if noise is None else self.given(noise, *size), len(prompts))
        ids, unread = self.tokenize(prompts, negative_prompt)
        counts = np.zeros(len(prompts), np.int64)
        fused = self.bundle.manifest.fused(steps)
        if fused and not parallel and sampler is None:
            images = self.at_once(fused, ids, draw, guidance_scale)
        else:
            latent = self.sample(self._encode(ids), draw, player, guidance_scale, on_step, original, counts)
            images = self.decode(latent)
        images = images if original is None else original.keep(images)
        scale = self.bundle.manifest.guidance.scale if guidance_scale is None else guidance_scale
        facts = provenance.facts(self.bundle.manifest, self.engine, negative_prompt, scale)
        facts |= {"parallel": str(parallel)} if parallel else {}
        facts |= {"steps": str(steps)} if sampler is None else {"sampler": sampler}
        facts |= {"height": str(height), "width": str(width), **(original.facts() if original else {})}
        pictures: list[Image.Image] = []
        for index, (prompt, image_made) in enumerate(zip(prompts, images, strict=True)):
            own = {"prompt": prompt, **({"seed": str(seed + index)} if noise is None else {"noise_sha256": used()[index]})}
            own |= {"prompt_not_read": unread[index]} if unread[index] else {}
            own |= {"evaluations": str(counts[index])} if counts[index] else {}
            own |= {"batch": f"{index + 1} of {len(prompts)}"} if len(prompts) > 1 else {}
            own |= player.efforts[index].facts() if isinstance(player, Parallel) else {}
            pictures.append(picture(image_made, {**own, **facts}))
        return pictures

    @property
    def batch(self) -> int:
        """How many pictures the denoiser, or a fused pipeline, takes at once."""
        parts = self.bundle.manifest.having("pipeline") or self.bundle.manifest.having("denoiser")
        return min(part.signature.lengths(part.signature.inputs[0].shape[0])[1] for part in parts.values())

    def original(
        self,
        image: Image.Image | None,
        mask: Image.Image | None = None,
        strength: float | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> Original | None:
        """Check an image to start from, or that there is none; raise UnsupportedError for what cannot be."""
        if image is None:
            for name, value in (("mask", mask), ("strength", strength)):
                if value is not None:
                    raise UnsupportedError(f"a {name} says how an image changes, and there is no image. Give one.")
            return None
        if self._encoder is None:
            raise UnsupportedError(
                "this bundle has no VAE encoder, so it starts from noise only. Build it with `vae_encoder: {}` among the "
                "recipe's components."
            )
        height, width = image.height if height is None else height, image.width if width is None else width
        try:
            self._fit(height, width)
        except UnsupportedError as error:
            raise UnsupportedError(
                f"an image of {width}x{height} pixels (width x height) does not fit. {error} Crop or resize it, or give height "
                "and width to have it resized."
            ) from error
        return Original.of(image, mask, strength, height, width)

    def encode(self, prompts: Sequence[str], negative_prompt: str = "") -> dict[str, np.ndarray]:
        """Return the conditioning by name: float32 (prompts, branches, …), the negative branch first where there are two."""
        return self._encode(self.tokenize(prompts, negative_prompt)[0])

    def tokenize(self, prompts: Sequence[str], negative_prompt: str) -> tuple[dict[str, np.ndarray], list[str]]:
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

    def sampler(self, steps: int, height: int, width: int, original: Original | None = None) -> Sampler:
        """Load the sampler of that many steps for that size in pixels, or say which there are."""
        self._fit(height, width)
        entry = self._entry(steps, height, width)
        kind = plugins.load("samplers", entry.kind)
        if original is None:
            return kind.load(self.bundle.path(entry.file))
        if entry.image is None:
            raise UnsupportedError(
                f"the sampler of {steps} steps was built without tables that start from an image. Build the bundle again."
            )
        return kind.load_start(self.bundle.path(entry.image), original.start(steps), alone=original.alone)

    def solver(self, wish: str, height: int, width: int) -> Player:
        """The sampler that is wished for, `NAME:key=value,…`, over the bundle's noise process; or say which there are."""
        self._fit(height, width)
        process = self.bundle.manifest.process
        return solver(wish, self.bundle.path(process) if process else None)

    def _fit(self, height: int, width: int) -> None:
        for axis, length, (low, high, step) in zip(("height", "width"), (height, width), self.sizes, strict=True):
            if not low <= length <= high or length % step:
                allowed = f"{low} to {high} in steps of {step}" if low < high else str(low)
                raise UnsupportedError(f"{axis} {length}: this bundle makes pictures of {axis} {allowed} pixels.")

    def _entry(self, steps: int, height: int, width: int) -> SamplerEntry:
        entries = self.bundle.manifest.samplers
        for size in ((height, width), (None, None)):
            for entry in entries:
                if (entry.steps, entry.height, entry.width) == (steps, *size):
                    return entry
        have = ", ".join(f"{entry.steps}" + (f" at {entry.height}x{entry.width}" if entry.height else "") for entry in entries)
        raise UnsupportedError(
            f"no sampler of {steps} steps for {height}x{width} in this bundle; there are: {have}. "
            f"Add one with: t2iexport build RECIPE --set sampler.steps=[{steps}]"
        )

    def sample(
        self,
        conditioning: Mapping[str, np.ndarray],
        draw: Draw,
        sampler: Player,
        guidance_scale: float | None = None,
        on_step: OnStep | None = None,
        original: Original | None = None,
        evaluations: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the final latent, float32 (pictures, channels, latent height, latent width).

        Where there is an original, `sampler` is one that starts from it, and its encoder takes the first draw.
        `evaluations`, int64 (pictures,), is added to: how often the denoiser ran for each picture.
        """
        scale = self._scale(guidance_scale)
        (output,) = self.bundle.manifest.parts[self._denoiser].signature.outputs
        conditioning = {name: _fixed(array) for name, array in conditioning.items()}

        def denoise(latent: np.ndarray, timestep: float | np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
            times, scales = (np.full(len(latent), value, np.float32) for value in (timestep, scale))
            if evaluations is not None:
                np.add.at(evaluations, np.arange(len(latent)) if which is None else which, 1)
            own = conditioning if which is None else {name: array[which] for name, array in conditioning.items()}
            pool = {**own, "latent": latent, "timestep": times, "guidance_scale": scales}
            return self._run(self._denoiser, pool)[output.name]

        if original is None:
            return sampler.play(denoise, draw, on_step)
        count = len(next(iter(conditioning.values())))
        image = self.latent(original, count, draw)
        return sampler.play(denoise, draw, on_step, {"image": image}, original.cells(*image.shape[2:]))

    def at_once(self, name: str, ids: Mapping[str, np.ndarray], draw: Draw, guidance_scale: float | None) -> np.ndarray:
        """Run a whole pipeline, the part of that name, in one call; `ids` as `tokenize` gives them, images as from `decode`."""
        draws = int(_axes(self.bundle.manifest.parts[name], "noise")[1])
        noise = np.stack([draw() for _ in range(draws)], axis=1)
        scales = np.full(len(noise), self._scale(guidance_scale), np.float32)
        images = self._run(name, {**ids, "noise": noise, "guidance_scale": scales})["image"]
        if not np.isfinite(images).all():
            raise UnsupportedError(
                f"{name} returned NaN or infinity. If it computes in fp16, build it with precision bf16 or fp32; built with "
                "pipeline: stepped, the bundle says at which step."
            )
        return images

    def _scale(self, wanted: float | None) -> float:
        guidance = self.bundle.manifest.guidance
        if wanted is not None and guidance.mode == "none":
            raise UnsupportedError("this bundle was built without guidance, so it takes no guidance scale. Leave it out.")
        scale = guidance.scale if wanted is None else wanted
        if not math.isfinite(scale or 0):
            raise UnsupportedError(f"guidance scale {scale} is not a number to multiply by. Give a finite one.")
        return scale or 0.0

    def latent(self, original: Original, count: int, draw: Draw) -> np.ndarray:
        """Encode a picture `count` times, float32 (count, channels, latent height, latent width); a random encoder draws once."""
        if self._encoder is None:
            raise UnsupportedError("this bundle has no VAE encoder, so there is no latent of a picture.")
        pool = {"image": original.images(count)}
        if self.bundle.manifest.parts[self._encoder].signature.port("noise"):
            pool["noise"] = draw()
        latent = self._run(self._encoder, pool)["latent"]
        if not np.isfinite(latent).all():
            raise UnsupportedError("the encoder returned NaN or infinity. If it computes in fp16, build it with precision fp32.")
        return latent

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """Return images, float32 (pictures, height, width, 3) in [0, 1]."""
        tile = self.bundle.manifest.parts[self._decoder].tile

        def whole(piece: np.ndarray) -> np.ndarray:
            return self._run(self._decoder, {"latent": piece})["image"]

        return tiling.decoded(whole, latent, tile, self._factors) if tile else whole(latent)

    def seeded(self, seed: int, count: int, height: int, width: int) -> Draw:
        """Return noise from one Philox stream per picture, keyed seed, seed + 1 …; the size is in pixels."""
        return noises.seeded(seed, self._latent(count, height, width))

    def given(self, noise: Iterable[np.ndarray], count: int, height: int, width: int) -> Draw:
        """Return the caller's own draws, checked against the size in pixels."""
        return noises.given(noise, self._latent(count, height, width))

    def _latent(self, count: int, height: int, width: int) -> tuple[int, int, int, int]:
        return count, self._channels, height // self._factors[0], width // self._factors[1]

    def _run(self, name: str, pool: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one part on what it takes of the pool, in batches that it can take."""
        if name not in self._networks:
            raise UnsupportedError(
                f"{name} has no engine of its own: this bundle is one graph from prompt to picture. For that, build it with "
                "pipeline: stepped."
            )
        signature = self.bundle.manifest.parts[name].signature
        return sessions.run(self._networks[name], signature, {port.name: pool[port.name] for port in signature.inputs})


def _fixed(array: np.ndarray) -> np.ndarray:
    """A view that nobody writes to: an engine that sees it again knows that it holds the same."""
    view = array.view()
    view.flags.writeable = False
    return view


def _axes(part: PartEntry, name: str) -> tuple[Any, ...]:
    port = part.signature.port(name)
    return port.shape if port else ()
