"""Stage ``latents``: the encoded pictures of a pool of training scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from tools.demo import scenes
from tools.demo.training import vae

BATCH = 64


@torch.no_grad()
def encode(vae_folder: Path, folder: Path, count: int) -> None:
    """Encodes the pictures of training scenes 0..count-1.

    Writes ``moments.npy``, float16 (count, 8, 8, 8): mean and then standard
    deviation of the latents' distribution (4 channels each, unscaled), and
    ``scaling.json`` with the factor that brings the latents to unit variance.
    """
    model = vae.load(vae_folder)
    folder.mkdir(parents=True, exist_ok=True)
    moments = open_memmap(folder / "moments.npy", "w+", np.float16, (count, 8, 8, 8))
    for start in range(0, count, BATCH):
        seeds = range(start, min(start + BATCH, count))
        pixels = vae.as_pixels([scenes.draw(scenes.training_scene(seed)) for seed in seeds])
        posterior = vae.posterior(model, pixels)
        both = torch.cat([posterior.mean, posterior.std], 1)
        moments[start : start + len(seeds)] = both.to(torch.float16).numpy()
    moments.flush()
    some = np.asarray(moments[: min(count, 20_000)], dtype=np.float64)
    mean, noise = some[:, :4], some[:, 4:]
    spread = float(np.sqrt(mean.var() + np.square(noise).mean()))
    facts = {"scaling_factor": 1 / spread, "mean": float(mean.mean()), "count": count}
    (folder / "scaling.json").write_text(json.dumps(facts) + "\n")


class Pool:
    """The encoded pool, in memory.

    Attributes:
        scaling: Factor applied to every latent, as the pipeline expects.
        scenes: The scene of each latent.

    """

    def __init__(self, folder: Path) -> None:
        self.scaling: float = json.loads((folder / "scaling.json").read_text())["scaling_factor"]
        self._moments = torch.from_numpy(np.load(folder / "moments.npy"))
        self.scenes = [scenes.training_scene(seed) for seed in range(len(self._moments))]

    def __len__(self) -> int:
        return len(self._moments)

    def sample(self, indices: np.ndarray) -> torch.Tensor:
        """Draws scaled latents, float32 (N, 4, 8, 8), with torch's generator."""
        chosen = self._moments[torch.from_numpy(indices)].float()
        mean, spread = chosen.chunk(2, 1)
        return (mean + spread * torch.randn_like(mean)) * self.scaling
