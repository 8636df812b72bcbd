"""Pictures to learn from, and a recipe that does."""

import pytest

from tests.exporter import lessons


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return lessons.pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def text(tiny_sdxl, data):
    return lessons.RECIPE.replace("SOURCE", str(tiny_sdxl)).replace("DATA", str(data))
