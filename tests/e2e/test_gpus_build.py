"""One recipe, engines of TensorRT for two kinds of GPU, one bundle. TensorRT-RTX's builder stands in for TensorRT's."""

from concurrent.futures import Future

import pytest

from engines.backends import tensorrt
from engines.backends.tensorrt import Tensorrt
from engines.bundle import Bundle
from engines.errors import UnsupportedError
from exporter.build import build
from exporter.cluster.runner import NoSuchMachine, failed
from exporter.recipe.schema import Recipe
from exporter.stages.away import Cluster
from exporter.stages.store import Store
from tests.e2e.conftest import silent

rtx = pytest.importorskip("tensorrt_rtx")
pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
RECIPE = """
model: {source: micro-sdxl, weights: random}
sampler: {scheduler: EulerDiscreteScheduler, steps: [1]}
shapes: {height: [64, 64, 64], width: [64, 64, 64], batch: [1, 1, 1]}
targets: [onnxruntime, tensorrt: {compute_capabilities: ["9.0", "8.9"]}]
checks: {skip: what is built where is what counts}
"""


class Machines:
    """A cluster in this process: the GPU that a task asks for is the one that TensorRT finds."""

    width = 1

    def __init__(self, monkeypatch, *gpus):
        self._monkeypatch, self.gpus, self.asked = monkeypatch, gpus, []

    def run(self, function, task, *, asked):
        self.asked.append(asked.gpu)
        self._monkeypatch.setattr(Tensorrt, "_found", lambda *_: asked.gpu)
        done = Future()
        try:
            done.set_result(function(task))
        except UnsupportedError as error:
            return failed(error)
        return done

    def refuse(self, asked):
        if asked.gpu not in self.gpus:
            raise NoSuchMachine(f"{asked} is asked for, and no machine of the cluster has it.")


def test_each_gpu_builds_its_own_into_one_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(Tensorrt, "distributions", ("tensorrt_rtx",))
    monkeypatch.setattr(tensorrt, "vendor", lambda *_: rtx)
    monkeypatch.setattr(tensorrt, "require_driver", lambda *_: None)
    recipe, store = Recipe.parse(RECIPE, "micro", tmp_path), Store(tmp_path / "store")
    with pytest.raises(UnsupportedError, match=r"text_encoder, tensorrt 8\.9: .* and this machine has none\.\n.*--ray"):
        build(recipe, tmp_path / "bundle", store, silent)
    with pytest.raises(NoSuchMachine, match=r"tensorrt 9\.0: a GPU of compute capability 9\.0"):
        build(recipe, tmp_path / "bundle", store, silent, cluster=Cluster(Machines(monkeypatch, "8.9")))
    assert not [entry for entry in (tmp_path / "store" / "entries").iterdir() if "export" in (entry / "entry.json").read_text()]

    machines = Machines(monkeypatch, "8.9", "9.0")
    build(recipe, tmp_path / "bundle", store, silent, cluster=Cluster(machines))
    bundle = Bundle.open(tmp_path / "bundle")
    bundle.verify()
    for name, part in bundle.manifest.parts.items():
        own = [f"engines/tensorrt/{name}.sm{number}.engine" for number in (89, 90)]
        assert (list(part.engines["tensorrt"].files), len(part.engines)) == (own, 2)
        assert part.engines["tensorrt"].options["compute_capabilities"] == ["8.9", "9.0"]
    assert sorted(machines.asked) == sorted(["8.9", "9.0"] * len(bundle.manifest.parts))

    # What is there needs no machine, and one more kind of GPU builds its own alone.
    build(recipe, tmp_path / "again", store, silent)
    more = recipe.changed("targets=[onnxruntime, tensorrt: {compute_capabilities: ['8.9', '9.0', '12.0']}]")
    machines = Machines(monkeypatch, "12.0")
    build(more, tmp_path / "more", store, silent, cluster=Cluster(machines))
    assert set(machines.asked) == {"12.0"}
    assert len(Bundle.open(tmp_path / "more").manifest.parts["unet"].engines["tensorrt"].files) == 3
