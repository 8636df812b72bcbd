"""Tiny models for every test of the exporter."""

from pathlib import Path

import pytest

from tests.exporter import models


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory) -> Path:
    """A Stable Diffusion pipeline on disk: 4 px per latent cell, sizes are multiples of 16 px. Not to be written to."""
    return models.save_sd(tmp_path_factory.mktemp("tiny_sd"))


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory) -> Path:
    """An SDXL pipeline on disk: 4 px per latent cell, sizes are multiples of 16 px. Not to be written to."""
    return models.save_sdxl(tmp_path_factory.mktemp("tiny_sdxl"))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Pictures to learn from."""
    # Imports what trains, six seconds of a CPU; most files here train nothing.
    from tests.exporter import lessons

    return lessons.pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def text(tiny_sdxl, data):
    """A recipe that learns from them."""
    from tests.exporter import lessons

    return lessons.RECIPE.replace("SOURCE", str(tiny_sdxl)).replace("DATA", str(data))
