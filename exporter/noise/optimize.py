"""Optimise the noise of prompts under a reward in torch, write it as a file, and see what it is worth on the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engines.bundle import Bundle
from engines.disk import require_file, writing
from engines.errors import UnsupportedError
from engines.pipeline import Pipeline
from engines.request import Request
from engines.reward import Reward
from exporter.bench.drawing import require_prompts_alone
from exporter.build import modules
from exporter.noise.ascent import Ascended, AscentOptions, OnIteration, ascend
from exporter.noise.torch_pipeline import TorchPipeline
from exporter.noise.torch_reward import TorchReward

if TYPE_CHECKING:
    from exporter.build import Progress
    from exporter.stages.store import Store


@dataclass(frozen=True)
class OptimizedNoise:
    """What was found.

    Attributes:
        noise: draws as `generate --noise` takes them, float32 (draws, pictures, C, H, W); without the first axis where a picture
            takes one draw.
        rewards: of the networks in torch, float64 (iterations + 1, pictures), from the seed's noise on.
        replayed: of the bundle's own pictures of the noise, on its engine, float32 (pictures,).
        engine: which that was.

    """

    noise: np.ndarray
    rewards: np.ndarray
    replayed: np.ndarray
    engine: str


class NoiseSearch:
    """A bundle's networks and a reward, both in torch.

    Raises:
        UnsupportedError: the bundle needs more than prompts, or its source model is not here.
        RecipeError, BundleError: the reward, or what it was made of, is not here.

    """

    def __init__(self, path: Path, reward: Path, store: Store, report: Progress) -> None:
        bundle = Bundle.open(path)
        require_prompts_alone(bundle.manifest.inputs, "noise optimisation")
        self._about, self._judge = bundle.manifest, TorchReward(reward)
        self._pipeline = TorchPipeline(bundle, modules(path, store, report), self._judge.device)

    def optimize(
        self,
        prompts: Sequence[str],
        options: AscentOptions,
        on_iteration: OnIteration | None = None,
        *,
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        guidance_scale: float | None = None,
    ) -> tuple[np.ndarray, Ascended]:
        """Optimise the noise of a picture of each prompt, all together, at the bundle's own size.

        Returns:
            Every draw that the pictures take, float32 (draws, pictures, C, H, W), the initial noise optimised and the others
            the seeds' own; and what the ascent came to.

        Raises:
            UnsupportedError: the sampler has no gradient, or a number of it is none.

        """
        how: dict[str, Any] = {"negative_prompt": "", "seed": seed, "generator": None, "inputs": None}
        asked = Request.of(self._about, list(prompts), 1, **how, guidance_scale=guidance_scale)
        size = self._about.defaults.height, self._about.defaults.width
        images, draws, first = self._pipeline.drawing(asked, self._pipeline.table(steps), size)
        rate = self._judge.rate(prompts)
        start = torch.from_numpy(draws[first]).to(self._judge.device)
        found = ascend(lambda noise: rate(images(noise)), start, options, on_iteration)
        draws[first] = found.noise
        return draws, found


def optimize(
    path: Path,
    reward: Path,
    prompts: Sequence[str],
    options: AscentOptions,
    out: Path,
    store: Store,
    report: Progress,
    on_iteration: OnIteration | None = None,
    *,
    seed: int = 0,
    **wishes: Any,  # noqa: ANN401 - steps and guidance_scale, as `NoiseSearch.optimize` takes them
) -> OptimizedNoise:
    """Optimise the noise of a picture of each prompt, one after the other, write all of it to `out`, and draw with the bundle.

    Raises:
        T2IError: as `NoiseSearch` and its `optimize`.

    """
    if out.suffix != ".npy":
        raise UnsupportedError(f"{out} must end in .npy, the format that --noise reads.")
    require_file(out)
    search, found = NoiseSearch(path, reward, store, report), list[tuple[np.ndarray, Ascended]]()
    for number, prompt in enumerate(prompts):
        found.append(search.optimize([prompt], options, on_iteration, seed=seed + number, **wishes))
    noise = np.concatenate([draws for draws, _ in found], axis=1)
    noise = noise[0] if len(noise) == 1 else noise
    with writing(out.parent, f"writing {out}"):
        np.save(out, noise)
    with Pipeline.open(path) as pipeline, Reward.open(reward) as judge:
        replayed = judge.scores(pipeline.generate(list(prompts), noise=noise, **wishes), prompts)
        return OptimizedNoise(noise, np.concatenate([each.rewards for _, each in found], axis=1), replayed, pipeline.engine)
