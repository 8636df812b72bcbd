import pytest

from engines.pipeline import Pipeline
from tests.engines import small


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "small")


@pytest.fixture
def pipeline(bundle):
    return Pipeline(bundle, small.networks(bundle))


@pytest.fixture
def with_encoder(tmp_path):
    """A pipeline that can start from an image."""
    bundle = small.make(tmp_path / "with_encoder", encoder=True)
    return Pipeline(bundle, small.networks(bundle), "toy 1")
