import pytest

from tests.engines import small


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "small")
