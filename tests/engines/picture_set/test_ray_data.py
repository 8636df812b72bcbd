"""Shards through Ray Data, on a local Ray of two machines of which one is lost; and what is told where that cannot be."""

import sys
import threading
import time
from types import ModuleType

import pytest

from engines.errors import MissingDependency, UnsupportedError
from engines.picture_set import ray_data
from engines.picture_set.drawer import Drawer
from engines.picture_set.shards import Shard
from tests.engines import small
from tests.engines.test_real_engines import graphs


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"pip install 't2iexport\[ray\]'"):
        next(ray_data.draw("auto", [], ()))


def test_a_cluster_that_does_not_answer_is_a_sentence(monkeypatch):
    def init(**_options):
        raise ConnectionError("Could not find any running Ray instance.\nmore")

    ray = ModuleType("ray")
    vars(ray).update(init=init)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ModuleType("ray.data"))
    with pytest.raises(UnsupportedError, match=r"--ray 10\.0\.0\.1:6379: no cluster answers \(Could not find any"):
        next(ray_data.draw("10.0.0.1:6379", [], ()))


@pytest.mark.parametrize(("cpus", "gpus", "room"), [(1, 0, 6), (4, 0, 1), (0.5, 0.25, 4), (8, 0, 0), (1, 2, 0)])
def test_there_are_as_many_actors_as_machines_have_room_for(cpus, gpus, room):
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}, {"Alive": True, "Resources": {"CPU": 2.0}}]
    nodes.append({"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}})
    assert ray_data._room(nodes, cpus, gpus) == room


@pytest.fixture
def cluster():
    pytest.importorskip("ray.data")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.spare = made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_machine_that_is_lost_costs_no_picture(cluster, tmp_path):
    bundle = small.make(tmp_path / "bundle", graphs=graphs())
    shards = [Shard(number, 2 * number, ("a", "b"), 2 * number) for number in range(60)]
    arguments = str(bundle.folder), None, {"steps": 2}
    found = {}

    def lose():
        while len(found) < 5:
            time.sleep(0.1)
        cluster.remove_node(cluster.spare, allow_graceful=False)

    threading.Thread(target=lose, daemon=True).start()
    for row in ray_data.draw(cluster.address, shards, arguments):
        assert not row["error"]
        assert row["number"] not in found
        found[row["number"]] = list(row["pictures"])
    alone = Drawer(*arguments)
    assert sorted(found) == list(range(60))
    for shard in (shards[0], shards[31], shards[59]):
        assert found[shard.number] == alone(vars(shard))["pictures"]
    with pytest.raises(UnsupportedError, match="64 CPUs are asked for, and no machine"):
        next(ray_data.draw(cluster.address, shards, arguments, cpus=64))
