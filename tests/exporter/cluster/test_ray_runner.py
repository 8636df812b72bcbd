"""Tasks on a local Ray of two machines, one of which is killed; and what is told where there is no Ray, or no cluster."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace

import pytest

from engines.errors import MissingDependency, RecipeError, UnsupportedError
from exporter.cluster import ray_runner
from exporter.cluster.ray_runner import RayRunner
from exporter.cluster.resources import Resources
from exporter.cluster.runner import RETRIES, NoSuchMachine, WorkerDied, failed


def marked(folder, name, seconds):
    """Say when it began and ended, in a file of its own, and on which machine."""
    import ray

    began = time.time()
    time.sleep(seconds)
    node = ray.get_runtime_context().get_node_id()
    (folder / f"{name}.{os.getpid()}").write_text(f"{node} {began} {time.time()}")
    return name


def where():
    import ray

    return ray.get_runtime_context().get_node_id()


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


class Machines(ModuleType):
    """A Ray of some machines that keeps what a task asks for, and begins none."""

    def __init__(self, *machines):
        super().__init__("ray")
        self.asked, self._nodes = [], [{"Alive": True, "Resources": each} for each in machines]
        self._nodes.append({"Alive": False, "Resources": {"CPU": 512.0, "GPU": 8.0, "accelerator_type:H100": 1.0}})

    def init(self, **_options):
        """Answer."""

    def shutdown(self):
        """End."""

    def nodes(self):
        return self._nodes

    def remote(self, **options):
        self.asked.append(options)
        return lambda function: SimpleNamespace(remote=lambda *_: SimpleNamespace(future=lambda: failed(KeyError(function))))


@pytest.mark.parametrize(
    ("asked", "alone", "wanted"),
    [
        ({}, False, {"num_cpus": 1}),
        ({}, True, {"num_cpus": 64, "max_calls": 1}),
        ({"cpus": 8, "memory": "16 GB"}, False, {"num_cpus": 8, "memory": 16 * 10**9}),
        # All CPUs of the largest machine that has the GPU, not of one that has more.
        ({"gpu": "9.0"}, True, {"num_cpus": 16, "max_calls": 1, "num_gpus": 1, "resources": {"accelerator_type:H100": 0.001}}),
        ({"gpu": "8.7"}, False, {"num_cpus": 1, "num_gpus": 1, "resources": {"compute_capability:8.7": 0.001}}),
        ({"memory": "100 GB"}, True, {"num_cpus": 64, "max_calls": 1, "memory": 10**11}),
    ],
)
def test_ray_is_asked_for_a_machine_that_fits(monkeypatch, asked, alone, wanted):
    machines = [
        {"CPU": 64.0, "memory": 2e11},
        {"CPU": 16.0, "memory": 6e10, "GPU": 2.0, "accelerator_type:H100": 1.0},
        {"CPU": 8.0, "memory": 6e10, "GPU": 1.0, "accelerator_type:H100": 1.0},
        {"CPU": 12.0, "memory": 6e10, "GPU": 1.0, "compute_capability:8.7": 1.0},
    ]
    ray, exceptions = Machines(*machines), ModuleType("ray.exceptions")
    vars(exceptions).update(dict.fromkeys((*ray_runner._LOST, *ray_runner._STRANGE, "RayTaskError"), ValueError))
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    with RayRunner("auto") as runner:
        runner.run(fail, alone=alone, asked=Resources(**asked))
        assert runner.width == 100
    assert ray.asked == [{"max_retries": RETRIES, **wanted}]


@pytest.mark.parametrize("asked", [{"gpu": "8.9"}, {"cpus": 99}, {"memory": "1 GB", "gpu": "9.0"}])
def test_what_no_machine_has_is_told_and_not_waited_for(monkeypatch, asked):
    ray = Machines({"CPU": 4.0, "memory": 1e6, "GPU": 1.0, "accelerator_type:H100": 1.0})
    monkeypatch.setitem(sys.modules, "ray", ray)
    with RayRunner("auto") as runner:
        error = runner.run(fail, asked=Resources(**asked)).exception()
    assert isinstance(error, NoSuchMachine)
    assert "no machine of the cluster has it" in str(error)
    assert ray.asked == []


def test_a_machine_with_another_release_is_told(monkeypatch):
    class StrangeError(Exception):
        pass

    ray, exceptions = Machines({"CPU": 4.0}), ModuleType("ray.exceptions")
    vars(exceptions).update(dict.fromkeys((*ray_runner._LOST, "RayTaskError"), ValueError))
    vars(exceptions).update(dict.fromkeys(ray_runner._STRANGE, StrangeError))
    told = failed(StrangeError("System error: cannot import name 'Engine' from 'engines'\nmore"))
    monkeypatch.setattr(
        ray, "remote", lambda **_: lambda _: SimpleNamespace(remote=lambda *_: SimpleNamespace(future=lambda: told))
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    with RayRunner("auto") as runner:
        error = runner.run(fail).exception()
    assert isinstance(error, UnsupportedError)
    assert str(error).startswith("a machine of the cluster cannot begin the task: cannot import name 'Engine' from 'engines'\n")


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    made.spare = made.add_node(num_cpus=2)
    made.ada = made.add_node(num_cpus=1, num_gpus=1, resources={"compute_capability:8.9": 1})
    yield made
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_measurement_is_alone_on_its_machine_and_what_is_lost_is_done_again(cluster, tmp_path):
    with RayRunner(cluster.address) as runner, ThreadPoolExecutor(8) as threads:
        assert runner.width == 5
        ada = {runner.run(where, alone=alone, asked=Resources(gpu="8.9")).result() for alone in (False, True)}
        assert ada == {cluster.ada.node_id}
        cluster.remove_node(cluster.ada)
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
