"""Tasks on a local Ray of two machines, one of which is killed; and what is told where there is no Ray, or no cluster."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from engines.errors import MissingDependency, RecipeError, UnsupportedError
from exporter.sweep.ray_runner import RayRunner
from exporter.sweep.runner import WorkerDied


def marked(folder, name, seconds):
    """Say when it began and ended, in a file of its own, and on which machine."""
    import ray

    began = time.time()
    time.sleep(seconds)
    node = ray.get_runtime_context().get_node_id()
    (folder / f"{name}.{os.getpid()}").write_text(f"{node} {began} {time.time()}")
    return name


def fail(problems):
    raise RecipeError(problems)


def die():
    os.kill(os.getpid(), 9)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"pip install 't2iexport\[ray\]'"):
        RayRunner("auto")


def test_a_cluster_that_does_not_answer_is_a_sentence(monkeypatch):
    def init(**_options):
        raise ConnectionError("Could not find any running Ray instance.\nmore")

    ray = ModuleType("ray")
    ray.init = init
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(UnsupportedError, match=r"--ray 10\.0\.0\.1:6379: no cluster answers \(Could not find any"):
        RayRunner("10.0.0.1:6379")


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    made.spare = made.add_node(num_cpus=2)
    yield made
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_measurement_is_alone_on_its_machine_and_what_is_lost_is_done_again(cluster, tmp_path):
    with RayRunner(cluster.address) as runner, ThreadPoolExecutor(8) as threads:
        assert runner.width == 4
        error = runner.run(fail, ["a: b", "c: d"]).exception()
        assert type(error) is RecipeError
        assert error.problems == ("a: b", "c: d")
        assert "fail" in str(error.__cause__)  # where it was
        assert isinstance(runner.run(die).exception(), WorkerDied)

        names = [*(f"build{index}" for index in range(8)), *(f"alone{index}" for index in range(4))]
        asked = [threads.submit(runner.run, marked, tmp_path, name, 0.5, alone=name.startswith("alone")) for name in names]
        assert [each.result().result() for each in asked] == names
        spans = [(file.name, *file.read_text().split()) for file in tmp_path.iterdir()]
        for name, node, began, ended in spans:
            if name.startswith("alone"):
                there = [span for span in spans if span[1] == node and span[0] != name]
                beside = [other for other, _, start, end in there if start < ended and end > began]
                assert not beside
        assert len({name.partition(".")[2] for name, *_ in spans if name.startswith("alone")}) == 4  # a process each

        asked = [threads.submit(runner.run, marked, tmp_path, f"long{index}", 4.0) for index in range(4)]
        time.sleep(1.5)
        cluster.remove_node(cluster.spare, allow_graceful=False)
        assert sorted(each.result().result() for each in asked) == [f"long{index}" for index in range(4)]
