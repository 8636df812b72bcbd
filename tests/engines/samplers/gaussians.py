"""A model whose every answer is known: the exact score of a mixture of two Gaussians in the plane, at every pixel on its own.

A latent (B, 2, 8, 8) holds 64 independent points a picture, so that a picture's own error and norms are those of many numbers,
as a real latent's are.
"""

import itertools

import numpy as np

from engines.noise_process import Process, ProcessProvenance

WEIGHTS = np.array([0.3, 0.7])
MEANS = np.array([[-1.0, 0.5], [0.8, -0.2]])
DEVIATIONS = np.array([0.3, 0.5])
SHAPE = (2, 8, 8)
MEAN = WEIGHTS @ MEANS
COVARIANCE = sum(
    w * (d**2 * np.eye(2) + np.outer(m - MEAN, m - MEAN)) for w, m, d in zip(WEIGHTS, MEANS, DEVIATIONS, strict=True)
)
PROVENANCE = ProcessProvenance(scheduler="Toy", config={"beta_schedule": "scaled_linear"}, library="none")


def process(prediction="epsilon", times=1000):
    """Stable Diffusion's schedule; fewer times make a smaller file."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, times) ** 2 * (1000 / times)
    logs = np.cumsum(np.log1p(-betas))
    return Process(provenance=PROVENANCE, prediction=prediction, log_alpha_bar=tuple(logs))


def points(latent):
    """(B, 2, 8, 8) → (B * 64, 2)."""
    return latent.transpose(0, 2, 3, 1).reshape(-1, 2)


def latents(flat):
    """(B * 64, 2) → (B, 2, 8, 8)."""
    return flat.reshape(-1, 8, 8, 2).transpose(0, 3, 1, 2)


def noise(x, clock):
    """What a perfect model predicts, float64: x (N, 2) at the clocks u (N,)."""
    signal, variance = np.exp(-clock / 2)[:, None], -np.expm1(-clock)[:, None]
    spreads = signal**2 * DEVIATIONS**2 + variance
    away = x[:, None, :] - signal[:, :, None] * MEANS
    logs = np.log(WEIGHTS) - np.log(spreads) - (away**2).sum(-1) / (2 * spreads)
    shares = np.exp(logs - logs.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return np.sqrt(variance) * (shares[:, :, None] * away / spreads[:, :, None]).sum(1)


class Model:
    """A denoiser for samplers, and how often it was asked, per picture."""

    def __init__(self, process, pictures):
        self.process, self.evaluations = process, np.zeros(pictures, int)
        self.asked = []

    def __call__(self, latent, timestep, which=None):
        which = np.arange(len(latent)) if which is None else which
        np.add.at(self.evaluations, which, 1)
        self.asked.append(which)
        clock = np.repeat(self.process.clock(np.broadcast_to(np.float64(timestep), len(latent))), 64)
        x = points(latent).astype(np.float64)
        predicted = noise(x, clock)
        signal, sigma = np.exp(-clock / 2)[:, None], np.sqrt(-np.expm1(-clock))[:, None]
        clean = (x - sigma * predicted) / signal
        answer = {"epsilon": predicted, "v_prediction": signal * predicted - sigma * clean, "sample": clean}
        return latents(answer[self.process.prediction]).astype(np.float32)


def draws(process, pictures, seed=0):
    """Noise whose first draw is distributed as the mixture at the noisiest time: a sampler's own error is all there is."""
    random = np.random.Generator(np.random.Philox(seed))
    chosen = random.choice(2, pictures * 64, p=WEIGHTS)
    own = MEANS[chosen] + DEVIATIONS[chosen, None] * random.standard_normal((pictures * 64, 2))
    signal, sigma = np.exp(-process.noisy / 2), np.sqrt(-np.expm1(-process.noisy))
    first = latents(signal * own + sigma * random.standard_normal(own.shape)).astype(np.float32)
    yield first
    yield from standard((pictures, *SHAPE), seed + 1)


def standard(shape, seed=0):
    """Standard normal noise for ever."""
    random = np.random.Generator(np.random.Philox(seed))
    while True:
        yield random.standard_normal(shape, dtype=np.float32)


def off(latent):
    """How far mean and covariance are off, in standard errors of the mean; 4 is what chance may do."""
    flat = points(latent).astype(np.float64)
    centred = flat - MEAN
    products = (centred[:, :, None] * centred[:, None, :]).reshape(-1, 4)
    means = np.concatenate([flat, products], axis=1)
    wanted = np.concatenate([MEAN, COVARIANCE.ravel()])
    return np.abs(means.mean(0) - wanted).max(), (np.abs(means.mean(0) - wanted) / (means.std(0) / len(flat) ** 0.5)).max()


def flow(first, start, end, steps=4000):
    """The probability-flow ODE, float64: y = latent / signal over noise / signal from `start` to `end`, by Runge–Kutta 4."""

    def slope(y, log):
        s = np.exp(log)
        clock = np.full(len(y), np.log1p(s * s))
        return s * noise(y / np.sqrt(1 + s * s), clock)

    y, grid = points(first).astype(np.float64), np.linspace(np.log(start), np.log(end), steps + 1)
    for log, after in itertools.pairwise(grid):
        h = after - log
        k1 = slope(y, log)
        k2 = slope(y + h / 2 * k1, log + h / 2)
        k3 = slope(y + h / 2 * k2, log + h / 2)
        k4 = slope(y + h * k3, after)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y, slope(y, grid[-1])  # the slope over log s, times which a step of -1 takes the rest of the noise out


def order(sizes, errors):
    """Slope of log(error) over log(size)."""
    return -np.polyfit(np.log(sizes), np.log(errors), 1)[0]


def size(array):
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
