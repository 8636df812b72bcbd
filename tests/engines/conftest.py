import pytest

from engines.pipeline import Pipeline
from tests.engines import small


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "small")


@pytest.fixture
def pipeline(bundle):
    return Pipeline(bundle, small.networks(bundle))
