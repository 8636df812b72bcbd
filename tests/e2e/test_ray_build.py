"""A build whose engines the machines of a Ray cluster build, one of which is lost meanwhile: the bundle is the same."""

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from engines.bundle import Bundle
from exporter.build import build
from exporter.cluster.exchange import Exchange
from exporter.cluster.ray_runner import RayRunner
from exporter.recipe.schema import Recipe
from exporter.stages.away import BY, Cluster
from exporter.stages.store import Store
from tests.e2e.conftest import silent

RECIPE = """
model: {source: micro-sdxl, weights: random}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2]}
shapes: {height: [64, 64, 64], width: [64, 64, 64], batch: [1, 1, 1]}
targets:
  - openvino
  - tensorrt_rtx: {compute_capabilities: ["8.6", "8.9"]}
"""
#: Seconds that a build takes besides, so that a machine can be lost in the middle of one.
SLOW = 4.0


def slowly(function, folder, task):
    """Say on which machine a build begins, and take long."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    (Path(folder) / f"{task.name}.{time.time()}".replace("/", "-")).write_text(node)
    time.sleep(SLOW)
    return function(task)


class Slow:
    """A runner whose builds are slow."""

    def __init__(self, runner, folder):
        self._runner, self._folder, self.width = runner, folder, runner.width
        self.refuse = runner.refuse

    def run(self, function, *arguments, **more):
        return self._runner.run(slowly, function, str(self._folder), *arguments, **more)


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as Machines

    made = Machines(initialize_head=True, head_node_args={"num_cpus": 2})
    made.spare = made.add_node(num_cpus=2)
    yield made
    made.shutdown()


def contents(bundle):
    """All that a bundle holds but when it was made."""
    about = json.loads((bundle / "manifest.json").read_text())
    return about["files"], about["parts"], about["verdicts"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_the_bundle_is_the_same_though_a_machine_was_lost(cluster, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    recipe, begun, told = Recipe.parse(RECIPE, "micro", tmp_path), tmp_path / "begun", []
    begun.mkdir()
    build(recipe, tmp_path / "alone", Store(tmp_path / "own"), silent)

    def lose():
        while not any(file.read_text() == cluster.spare.node_id for file in begun.iterdir()):
            time.sleep(0.1)
        time.sleep(SLOW / 4)
        cluster.remove_node(cluster.spare, allow_graceful=False)

    def report(stage, seconds=None, *, by="", **_):
        told.append((stage.verb, by, seconds))

    threading.Thread(target=lose, daemon=True).start()
    with RayRunner(cluster.address) as runner:
        build(recipe, tmp_path / "spread", Store(tmp_path / "shared"), report, cluster=Cluster(Slow(runner, begun)))
    nodes = {file.read_text() for file in begun.iterdir()}
    assert cluster.spare.node_id in nodes
    assert len(nodes) == 2
    done = [name for name, by, seconds in told if by == BY and seconds]
    assert done == ["engine"] * len(done)
    # What was lost was begun again elsewhere.
    assert len(list(begun.iterdir())) > len(done) == 2 * len(Bundle.open(tmp_path / "alone").manifest.parts)
    assert contents(tmp_path / "spread") == contents(tmp_path / "alone")

    # Where no files are shared; graphs are as they were, and no engine is.
    shutil.copytree(tmp_path / "own", tmp_path / "other")
    entries = (tmp_path / "other" / "entries").iterdir()
    for entry in [each for each in entries if json.loads((each / "entry.json").read_text())["stage"] == "engine"]:
        shutil.rmtree(entry)
    with RayRunner(cluster.address) as runner:
        handed = Exchange((tmp_path / "handed").as_uri())
        build(recipe, tmp_path / "handed-over", Store(tmp_path / "other"), silent, cluster=Cluster(runner, handed))
        assert list((tmp_path / "handed").iterdir()) == []
    assert contents(tmp_path / "handed-over") == contents(tmp_path / "alone")
