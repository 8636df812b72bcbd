"""Step caching by search: which steps run the whole denoiser, and how deep the others go, found on the source's trajectories."""
