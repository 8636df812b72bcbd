"""What tests of traced pipelines share."""

from pathlib import Path

import pytest

from tools.coverage.models import BESIDE, MADE


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Where a micro model of a name lies."""
    made: dict[str, Path] = {}

    def saved(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            {**MADE, **BESIDE}[name]().save_pretrained(made[name])
        return made[name]

    return saved
