"""Prompts → pictures: tokenize, encode, sample, decode. Names are the wiring, so every model takes this one path."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from engines import lengths, manifest, request, sessions
from engines.bundle import Bundle
from engines.compiled import CompiledSamplers
from engines.denoising import BoundDenoiser
from engines.diffusers_call import DiffusersCall
from engines.errors import UnsupportedError
from engines.feed import Feed
from engines.generate_call import GenerateCall
from engines.guidance import Numbers
from engines.images import init_latent, noises, provenance, tiling
from engines.images.drawn import Drawn
from engines.images.init_image import InitImage
from engines.images.init_latent import InitLatent
from engines.lora.adapters import Adapters, BoundLoras
from engines.lora.stacking import Arrays
from engines.parallel.picard import Parallel, Picard
from engines.request import Request
from engines.sampler_parse import solver
from engines.samplers import Draw, OnStep, Player, Sampler
from engines.sessions import Network, Wrap, in_turn, turn
from engines.sizes import Sizes, axes
from engines.tokenizer import Tokenizers


class Pipeline(GenerateCall, DiffusersCall):
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
        about = bundle.manifest
        (self._denoiser,), (self._decoder,) = about.with_role("denoiser"), about.with_role("decoder")
        self._networks = {name: [network] for name, network in networks.items()}
        self._networks.get(self._denoiser, []).extend(denoisers)  # a fused bundle has none
        self._encoder = next(iter(about.with_role("encoder")), None)
        self._tokenizers, self._adapters = Tokenizers(bundle), Adapters(bundle)
        self._sizes = Sizes(bundle)
        self._samplers = CompiledSamplers(bundle)
        self.sizes = self._sizes.ranges

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
    def draw(
        self,
        asked: Request,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        height: int | None = None,
        width: int | None = None,
        noise: Iterable[np.ndarray] | noises.Drawing | None = None,
        on_step: OnStep | None = None,
        parallel: Picard | None = None,
        decoded: bool = True,
    ) -> Drawn:
        """Make what is asked for, as `generate` does, and return it as the networks do; final latents alone if not `decoded`."""
        if sampler is not None and steps is not None:
            raise UnsupportedError(f"steps {steps} are those of a compiled sampler; {sampler!r} has its own. Leave one out.")
        if sampler is not None and parallel is not None:
            raise UnsupportedError(f"only compiled samplers run in parallel; {sampler!r} is none. Leave one out.")
        if sampler is not None and (asked.denoising_end or asked.start["denoising_start"] is not None):
            raise UnsupportedError(f"only compiled samplers stop or begin between two steps; {sampler!r} is none. Leave one out.")
        about = self.bundle.manifest
        original = self.original(**asked.start, height=height, width=width)
        steps = about.defaults.steps if steps is None else steps
        height, width = original.size if original else self._sizes.chosen(asked.feed, about.defaults, height, width)
        size = len(asked.prompts), height, width
        # First, because it refuses what cannot be had.
        adapted, end = self._adapters.bind(asked.loras), asked.denoising_end
        player = self.sampler(steps, height, width, original, end) if sampler is None else self.solver(sampler, height, width)
        player = parallel.over(player) if parallel else player
        drawn, first = self._drawn(asked, size, noise)
        # Arrays come in the bundle's own order; what is drawn comes as the source draws it.
        began = isinstance(original, InitLatent)  # whoever made it has drawn
        started = about.start_order.get("image" if original.anew is None else "mask", ()) if original and not began else ()
        order = started if original else about.noise_order
        drawn = noises.reordered(drawn, order) if noise is None or callable(noise) else drawn
        draw, used = noises.hashed(drawn, size[0])
        ids, unread = self.tokenize(asked.prompts, asked.negative_prompts, **asked.seconds)
        fed = {**ids, **asked.feed.arrays(self._sizes.named(height, width)), **first}
        counts, latent = np.zeros(size[0], np.int64), None
        fused = about.fused(steps)
        if fused and decoded and not parallel and sampler is None:
            images = self.at_once(fused, fed, draw, asked.scales)
        else:
            conditioning = self.condition(fed, draw, adapted)
            latent = self.sample(conditioning, draw, player, asked.scales, on_step, original, counts)
            images = self.decode(latent, conditioning) if decoded else None
        images = images if original is None or images is None else original.keep(images)
        how = {"steps": str(steps)} if sampler is None else {"sampler": sampler}
        how |= {"parallel": str(parallel)} if parallel else {}
        facts = {**provenance.facts(about, self.engine), **how, "height": str(height), "width": str(width)}
        each: list[dict[str, str]] = []
        for index in range(size[0]):
            own = asked.facts(index, None if noise is None else used()[index]) | self._adapters.facts(asked.loras, index)
            own |= original.facts(index) if original else {}
            own |= {"prompt_not_read": unread[index]} if unread[index] else {}
            own |= {"evaluations": str(counts[index])} if counts[index] else {}
            own |= player.efforts[index].facts() if isinstance(player, Parallel) else {}
            each.append({**own, **facts})
        return Drawn(latent, images, each)

    @property
    def batch(self) -> int:
        """How many pictures the denoiser, or a fused pipeline, takes at once."""
        parts = self.bundle.manifest.with_role("pipeline") or self.bundle.manifest.with_role("denoiser")
        return min(part.signature.lengths(part.signature.inputs[0].shape[0])[1] for part in parts.values())

    def original(
        self,
        image: Image.Image | Sequence[Image.Image] | None,
        mask: Image.Image | Sequence[Image.Image] | None = None,
        strength: float | None = None,
        height: int | None = None,
        width: int | None = None,
        denoising_start: float | None = None,
    ) -> InitImage | InitLatent | None:
        """Check an image to start from, or one a picture, or that there is none; raise UnsupportedError for what cannot be.

        `denoising_start`: where it is no image, but the latents that another run has left there, one a picture.
        """
        if denoising_start is not None:
            if mask is not None or strength is not None:
                raise UnsupportedError(f"{'a mask' if mask else 'strength'} is of an image, and latents are given. Leave it out.")
            found = InitLatent.of(init_latent.each(image), denoising_start, self._sizes.latent(1, 1, 1)[1], self._sizes.factors)  # pyright: ignore[reportArgumentType] - it finds out
            self._sizes.fit(*found.size)
            return found
        if any(isinstance(one, np.ndarray) for one in (image if isinstance(image, list | tuple) else [image])):
            raise UnsupportedError("the image is an array. Give a PIL image; or denoising_start with it, if these are latents.")
        if image is not None and self._encoder is None:
            raise UnsupportedError(
                "this bundle has no VAE encoder, so it starts from noise only. Build it with `vae_encoder: {}` among the "
                "recipe's components."
            )
        return InitImage.asked(image, mask, strength, height, width, self._sizes.fit_image)

    def encode(
        self, prompts: Sequence[str], negative_prompt: str | Sequence[str] = "", **seconds: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Return the conditioning by name: float32 (prompts, branches, …), the negative branch first where there are two."""
        return self.condition(self.tokenize(prompts, negative_prompt, **seconds)[0])

    def tokenize(
        self, prompts: Sequence[str], negative_prompt: str | Sequence[str], **seconds: Sequence[str]
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Ids and attention masks by the input they feed, int64 (prompts, branches, length), and what of each was not read.

        `seconds` are `prompt_2` and `negative_prompt_2`, one a prompt.
        """
        return self._tokenizers.encode(prompts, negative_prompt, **seconds)

    def fed(self, inputs: Mapping[str, Sequence[Any]], count: int, height: int, width: int) -> dict[str, np.ndarray]:
        """The bundle's own inputs as its networks take them, by name, of one value per picture; the size is in pixels."""
        entries = self.bundle.manifest.inputs
        feed = Feed(entries, {name: inputs.get(name, [None] * count) for name in entries})
        return feed.arrays(self._sizes.named(height, width))

    def condition(self, fed: Mapping[str, np.ndarray], draw: Draw | None = None, adapted: BoundLoras | None = None) -> Arrays:
        """Run every part that runs once per picture, and return what the denoiser and the decoder take of all that is known.

        `fed` are token ids and masks as `tokenize` gives them, and the bundle's own inputs, by name, each of all pictures.
        A condition part that takes noise takes the next of `draw`. `adapted` are LoRAs by network; the denoiser's are returned.
        """
        about, known, adapted = self.bundle.manifest, dict(fed), adapted or {}
        for name in about.encoding_order():
            port = about.parts[name].signature.port("noise")
            noise = {} if draw is None or port is None else {"noise": draw()[:, : int(port.shape[1])]}
            known |= self._run(name, {**known, **noise, **adapted.get(name, {})})
        known |= adapted.get(self._denoiser, {})
        takers = [about.parts[name].signature for name in (self._denoiser, self._decoder)]
        taken = {name for each in takers for name in (*(port.name for port in each.inputs), *each.dims)}
        return {name: array for name, array in known.items() if name in taken}

    def sampler(
        self, steps: int, height: int, width: int, original: InitImage | InitLatent | None = None, end: float | None = None
    ) -> Sampler:
        """Load the sampler of that many steps for that size in pixels, that stops at `end`, or say which there are."""
        self._sizes.fit(height, width)
        return self._samplers.load(steps, height, width, original, end)

    def solver(self, wish: str, height: int, width: int) -> Player:
        """The sampler that is wished for, `NAME:key=value,…`, over the bundle's noise process; or say which there are."""
        self._sizes.fit(height, width)
        process = self.bundle.manifest.process
        return solver(wish, self.bundle.path(process) if process else None)

    def sample(
        self,
        conditioning: Mapping[str, np.ndarray],
        draw: Draw,
        sampler: Player,
        guidance_scale: Numbers | Mapping[str, Numbers] | None = None,
        on_step: OnStep | None = None,
        original: InitImage | InitLatent | None = None,
        evaluations: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the final latent, float32 (pictures, channels, latent height, latent width).

        `conditioning` as `condition` gives it. `guidance_scale` is of the usual scale, or of several by name, each one for all
        pictures or one a picture. Where there is an original, `sampler` is one that starts from it, and its encoder takes the
        next draw.
        `evaluations`, int64 (pictures,), is added to: how often the denoiser ran for each picture.
        """
        scales = self.bundle.manifest.guidance.fed(guidance_scale)
        denoise = BoundDenoiser(self._run, self.bundle.manifest, conditioning, scales, evaluations)
        if original is None:
            return sampler.play(denoise, draw, on_step)
        image = self.latent(original, len(next(iter(conditioning.values())) if evaluations is None else evaluations), draw)
        return sampler.play(denoise, draw, on_step, {"image": image}, original.cells(*image.shape[2:]))

    def at_once(
        self, name: str, fed: Mapping[str, np.ndarray], draw: Draw, guidance_scale: Numbers | Mapping[str, Numbers] | None
    ) -> np.ndarray:
        """Run a whole pipeline, the part of that name, in one call; `fed` as for `condition`, images as from `decode`."""
        draws = int(axes(self.bundle.manifest.parts[name], "noise")[1])
        noise = np.stack([draw() for _ in range(draws)], axis=1)
        steered = self.bundle.manifest.guidance.fed(guidance_scale)
        scales = {name: np.full(len(noise), scale, np.float32) for name, scale in steered.items()}
        images = self._run(name, {**fed, **scales, "noise": noise})["image"]
        if not np.isfinite(images).all():
            raise UnsupportedError(
                f"{name} returned NaN or infinity. If it computes in fp16, build it with precision bf16 or fp32; built with "
                "pipeline: stepped, the bundle says at which step."
            )
        return images

    def latent(self, original: InitImage | InitLatent, count: int, draw: Draw) -> np.ndarray:
        """Encode a picture `count` times, float32 (count, channels, latent height, latent width); a random encoder draws once."""
        if isinstance(original, InitLatent):
            return original.latents
        if self._encoder is None:
            raise UnsupportedError("this bundle has no VAE encoder, so there is no latent of a picture.")
        pool = {"image": original.images(count)}
        if self.bundle.manifest.parts[self._encoder].signature.port("noise"):
            pool["noise"] = draw()
        latent = self._run(self._encoder, pool)["latent"]
        if not np.isfinite(latent).all():
            raise UnsupportedError("the encoder returned NaN or infinity. If it computes in fp16, build it with precision fp32.")
        return latent

    def decode(self, latent: np.ndarray, conditioning: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Return images, float32 (pictures, height, width, 3) in [0, 1]; `conditioning` is for a decoder that takes any."""
        tile = self.bundle.manifest.parts[self._decoder].tile

        def whole(piece: np.ndarray) -> np.ndarray:
            return self._run(self._decoder, {**(conditioning or {}), "latent": piece})["image"]

        return tiling.decoded(whole, latent, tile, self._sizes.factors) if tile else whole(latent)

    def seeded(
        self, seed: int | Sequence[int], count: int, height: int, width: int, generator: manifest.Generator = "numpy"
    ) -> Draw:
        """Return noise from one stream per picture, of seed, seed + 1 …, or of a seed each; the size is in pixels."""
        shape = self._sizes.latent(count, height, width)
        return noises.seeded(request.seeds(seed, 1, count), shape, generator, noises.narrow(self.bundle.manifest, shape[1]))

    def _drawn(
        self, asked: Request, size: tuple[int, int, int], noise: Iterable[np.ndarray] | noises.Drawing | None
    ) -> tuple[Draw, dict[str, np.ndarray]]:
        """What the draws of a call are, and before them, by name, the noise of inputs that nobody gave."""
        if noise is None:
            shape = self._sizes.latent(*size)
            fewer = noises.narrow(self.bundle.manifest, shape[1])
            return noises.seeded_after(asked.feed.drawn, asked.seeds, shape, asked.generator, fewer)
        if missing := [*asked.feed.drawn]:
            raise UnsupportedError(f"noise is given, and none for the input {missing[0]}. Give that too, or neither.")
        return self.given(noise, *size), {}

    def given(self, noise: Iterable[np.ndarray] | noises.Drawing, count: int, height: int, width: int) -> Draw:
        """Return the caller's own draws, checked against the size in pixels."""
        return noises.given(noise, self._sizes.latent(count, height, width))

    def _run(self, name: str, pool: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one part on what it takes of the pool, in batches that it can take."""
        signature, networks = self.bundle.manifest.parts[name].signature, sessions.of(self._networks, name)
        run = functools.partial(sessions.run, networks, signature)
        return lengths.run(run, signature, lengths.taken(signature, pool))
