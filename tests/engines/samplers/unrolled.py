"""Small samplers in the form of tables, and denoisers whose answers are known."""

import numpy as np

from engines.sampler_ops import Draw, Emit, Eval
from engines.samplers.table import Table
from tests.engines import small


def compiled(steps, kind="ddim", *, previews=True):
    """Unroll DDIM, its ancestral sibling, or Heun's method on a cosine schedule; the model answers with noise."""
    times = np.linspace(0.98, 0.02, steps + 1)
    alphas, sigmas = np.cos(np.pi / 2 * times), np.sin(np.pi / 2 * times)
    basis = iter(np.eye(3 * steps + 2))
    ops, latent = [Draw()], next(basis)

    def evaluate(latent, step):
        row = np.trim_zeros(latent[: len(ops)], "b").tolist()
        preview = (1 / alphas[step], -sigmas[step] / alphas[step])
        ops.append(Eval(t=1000 * times[step], row=row, preview=preview if previews else None))
        return next(basis)

    def move(latent, output, step, spread=0.0):
        clean = (latent - sigmas[step] * output) / alphas[step]
        return alphas[step + 1] * clean + np.sqrt(sigmas[step + 1] ** 2 - spread**2) * output

    for step in range(steps):
        output = evaluate(latent, step)
        if kind == "heun":
            output = (output + evaluate(move(latent, output, step), step + 1)) / 2
        spread = 0.9 * sigmas[step + 1] * min(1.0, 8 / steps) ** 0.5 if kind == "ancestral" and step + 1 < steps else 0.0
        latent = move(latent, output, step, spread)
        if spread:
            ops.append(Draw())
            latent = latent + spread * next(basis)
    provenance = small.table().provenance.model_copy(update={"steps": steps})
    return Table(provenance=provenance, ops=(*ops, Emit(row=latent[: len(ops)].tolist())))


class Mixture:
    """The exact score of a few Gaussians in the space of latents; knows for each item of which picture it is.

    Attributes:
        calls: items of each call.

    """

    def __init__(self, shape, seed=0, spread=0.3, pictures=8):
        random = np.random.default_rng(seed)
        self.means = random.standard_normal((pictures, 3, int(np.prod(shape)))) * 0.8
        self.spread, self.calls = spread, []

    def __call__(self, latent, timestep, which=None):
        self.calls.append(len(latent))
        which = np.arange(len(latent)) if which is None else which
        times = np.broadcast_to(np.asarray(timestep, np.float64), (len(latent),))[:, None, None] / 1000
        alpha, sigma = np.cos(np.pi / 2 * times), np.sin(np.pi / 2 * times)
        apart = latent.reshape(len(latent), 1, -1) - alpha * self.means[which]
        variance = (alpha * self.spread) ** 2 + sigma**2
        likelihood = -np.square(apart).sum(2, keepdims=True) / (2 * variance)
        weight = np.exp(likelihood - likelihood.max(1, keepdims=True))
        score = -(weight * apart).sum(1) / weight.sum(1) / variance[:, 0]
        return (-sigma[:, 0] * score).reshape(latent.shape).astype(np.float32)


def draws(shape, seed=0):
    """Noise of a shape, the same at every start."""
    generator = np.random.default_rng(seed)
    return lambda: generator.standard_normal(shape, np.float32)
