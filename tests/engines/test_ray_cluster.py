"""Joining a cluster of Ray: what it is asked for, and a sentence where there is no Ray or no cluster."""

import os
import sys
from types import ModuleType

import pytest

from engines import ray_cluster
from engines.errors import MissingDependency, UnsupportedError


@pytest.fixture
def ray(monkeypatch):
    """A Ray that keeps what it is asked for, without its part `data`."""
    made = ModuleType("ray")
    vars(made).update(asked=[], init=lambda **options: made.asked.append(options))
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    return made


@pytest.mark.parametrize(("address", "wanted"), [("local", {"include_dashboard": False}), ("auto", {"address": "auto"})])
def test_its_processes_import_what_this_one_does(ray, monkeypatch, address, wanted):
    monkeypatch.setattr(sys, "path", ["", "/one", "/two"])
    assert ray_cluster.join(address) is ray
    paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(["/one", "/two"])}}
    assert ray.asked == [{"runtime_env": paths, "log_to_driver": False, "include_dashboard": None, **wanted}]


def test_without_ray_or_its_part_it_says_what_to_install(ray, monkeypatch):
    with pytest.raises(MissingDependency, match=r"(?s)ray\[data\].*pip install 't2iexport\[ray\]'"):
        ray_cluster.join("auto", "data")
    assert not ray.asked
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"pip install 't2iexport\[ray\]'"):
        ray_cluster.join("auto")


@pytest.mark.parametrize("kind", [ConnectionError, ValueError, RuntimeError])
def test_a_cluster_that_does_not_answer_is_a_sentence(ray, kind):
    def init(**_options):
        raise kind("Could not find any running Ray instance.\nmore")

    ray.init = init
    with pytest.raises(
        UnsupportedError, match=r"--ray 10\.0\.0\.1:6379: no cluster answers \(Could not find any .*--ray local\."
    ):
        ray_cluster.join("10.0.0.1:6379")
