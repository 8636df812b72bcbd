"""Samplers at build time: run a scheduler of diffusers, read its table off, prove it."""
