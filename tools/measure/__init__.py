"""Measurements of what the project builds, each a figure or a picture of the docs."""
