"""URLs of fsspec, and what their libraries raise."""

import pytest

from engines.errors import MachineError, MissingDependency, UnsupportedError
from exporter.cluster.remote_files import opened, saying


def test_a_url_is_a_file_system_and_a_place(tmp_path):
    system, place = opened(f"{tmp_path.as_uri()}/", "s3://bucket/x")
    assert place == str(tmp_path)
    assert system.exists(place)


def test_a_kind_that_is_not_known_or_not_installed_is_told(monkeypatch):
    with pytest.raises(UnsupportedError, match=r"nobody knows gopher://(.|\n)*such as s3://bucket/x"):
        opened("gopher://hole", "s3://bucket/x")

    def lacking(_url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", lacking)
    with pytest.raises(MissingDependency, match=r"Install s3fs(.|\n)*s3://"):
        opened("s3://bucket/x", "s3://bucket/x")


def test_whatever_is_raised_is_the_machine_s():
    with pytest.raises(MachineError, match=r"reading there: KeyError: 'x'\n  Try again"), saying("reading there", "Try again."):
        raise KeyError("x")
