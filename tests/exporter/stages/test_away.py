"""Engines that others build: what is begun elsewhere, what waits for it, and what is told when it cannot be."""

import math
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

import pytest

from engines.backends import BackendOptions
from engines.errors import MachineError, UnsupportedError
from engines.signature import Signature
from exporter import machine
from exporter.cluster.exchange import Exchange
from exporter.cluster.resources import ANYTHING
from exporter.cluster.runner import NoSuchMachine, died, failed
from exporter.stages import away, engines
from exporter.stages.away import BY, Cluster, EngineTask, build_engine, engines_away
from exporter.stages.engine_work import EngineWork
from exporter.stages.export import GraphFiles
from exporter.stages.stage import Results, Stage
from exporter.stages.store import Store


class Copying(BackendOptions):
    """A backend that copies the graph, for any machine or for GPUs by name."""

    distributions: ClassVar[tuple[str, ...]] = ("numpy",)
    gpus: tuple[str, ...] = ()

    @property
    def each(self):
        return {gpu: self.model_copy(update={"gpus": (gpu,)}) for gpu in self.gpus} if len(self.gpus) > 1 else {}

    def build(self, onnx, signature, folder):
        (folder / f"unet{''.join(self.gpus)}.engine").write_text(f"{onnx.read_text()} {signature.inputs}")


class Here:
    """A cluster whose only machine is this process; it keeps what it was asked for."""

    width = 2

    def __init__(self, *gpus):
        self.asked, self.gpus = [], gpus

    def run(self, function, task, *, alone=False, asked=ANYTHING):
        self.asked.append((function, task.name, alone, asked))
        try:
            self.refuse(asked)
            found = Future()
            found.set_result(function(task))
        except (MachineError, UnsupportedError) as error:
            return failed(error)
        return found

    def refuse(self, asked):
        if asked.gpu and asked.gpu not in self.gpus:
            raise NoSuchMachine(f"{asked} is asked for, and no machine has it")


class Family:
    def signature(self, _name):
        return Signature(inputs=(), outputs=(), dims={})


def _export(folder, _results):
    (folder / "unet.onnx").write_text("a graph")
    GraphFiles(folder, "unet").tell({})


def _after(folder, results, engine):
    (folder / "seen").write_text(" ".join(file.read_text() for file in results[engine].files))


GRAPH = Stage.keyed("export", "unet", _export, lambda folder: GraphFiles(folder, "unet"), options={}, inputs={})


def engine(**options):
    return engines.built("unet", "copying", Copying(**options), GRAPH, Family())


def make(cluster, store, *stages, report=lambda *_, **__: None):
    """Have engines built, and wait."""
    with engines_away(cluster, store, Results(store), report) as others:
        for stage in stages:
            others.begin(stage)
        others.finish()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_an_engine_is_built_elsewhere_once(store):
    told, runner, stage = [], Here(), engine()
    results = Results(store)
    for wanted in (True, False):
        with engines_away(Cluster(runner), store, results, lambda *given, **more: told.append((given, more))) as others:
            assert others.begin(GRAPH) is False  # a graph is made here
            results.folder(GRAPH)
            assert others.begin(stage) is wanted
            others.finish()
    assert results[stage].files[0].read_text() == "a graph ()"
    ((function, name, alone, asked),) = runner.asked
    assert (function, name, alone, asked.gpu) == (build_engine, "engine of unet, copying", False, None)
    assert asked.bytes == 1025 * 2**20
    begun, done = told
    assert begun == ((stage,), {"by": BY})
    assert done[0][0] is stage
    assert done[0][1] < 10
    assert done[1] == {"why": "first build", "by": BY}


def test_what_hangs_on_it_is_known(store):
    stage, results = engine(), Results(store)
    after = Stage.keyed("after", "unet", _after, lambda folder: folder, options={}, inputs={"engine": stage})
    further = Stage.keyed("further", "unet", _after, lambda folder: folder, options={}, inputs={"after": after})
    with engines_away(Cluster(Here()), store, results, lambda *_, **__: None) as others:
        assert not others.hangs_on(further)
        others.begin(stage)
        assert others.hangs_on(after)
        assert others.hangs_on(further)
        assert not others.hangs_on(GRAPH)


def test_each_gpu_builds_its_own_and_they_are_gathered(store):
    stage, results, runner = engine(gpus=("8.9", "9.0")), Results(store), Here("8.9", "9.0")
    first, second, whole = engines.each(stage)
    assert whole is stage
    assert (first.elsewhere.gpu, second.elsewhere.gpu, whole.elsewhere) == ("8.9", "9.0", None)
    away.refuse([first, second, whole], store, Cluster(runner))
    with engines_away(Cluster(runner), store, results, lambda *_, **__: None) as others:
        assert others.begin(first)
        assert others.begin(second)
        assert others.hangs_on(whole)
    assert [file.name for file in results[stage].files] == ["unet8.9.engine", "unet9.0.engine"]
    assert sorted(asked.gpu for *_, asked in runner.asked) == ["8.9", "9.0"]
    # One more, later: what was built is not built again.
    third = engines.each(engine(gpus=("8.9", "9.0", "12.0")))
    assert [bool(store.why(each.key)) for each in third] == [False, False, True, True]


def test_a_gpu_that_nobody_has_is_told_before_time_is_spent(store, monkeypatch):
    stages = list(engines.each(engine(gpus=("8.9", "9.0"))))
    monkeypatch.setattr(machine, "compute_capabilities", lambda: ["8.9"])
    with pytest.raises(UnsupportedError, match=r"unet, copying 9\.0: .* 9\.0, and this machine has 8\.9\.\n.*--ray"):
        away.refuse(stages, store, None)
    with pytest.raises(NoSuchMachine, match=r"unet, copying 8\.9: a GPU of compute capability 8\.9 is asked for"):
        away.refuse(stages, store, Cluster(Here("9.0")))
    results = Results(store)
    for stage in stages:
        results.folder(stage)
    away.refuse(stages, store, Cluster(Here()))  # they are there


def test_files_go_through_the_exchange(store, tmp_path, monkeypatch):
    stage, results, sent = engine(), Results(store), []
    own = Exchange.send
    monkeypatch.setattr(Exchange, "send", lambda self, files, place: sent.append(place) or own(self, files, place))
    cluster = Cluster(Here(), Exchange((tmp_path / "handed").as_uri()))
    with engines_away(cluster, store, results, lambda *_, **__: None) as others:
        others.begin(stage)
        others.begin(engines.built("unet", "other", Copying(), GRAPH, Family()))
        others.finish()
    assert results[stage].files[0].read_text() == "a graph ()"
    assert sum("graph-" in place for place in sent) == 1  # once for both
    assert list((tmp_path / "handed").iterdir()) == []


def test_a_failure_is_what_the_build_raises_and_the_others_are_kept(store):
    good, bad, told = engine(), engine(gpus=("9.9",)), []
    bad = Stage(**{**vars(bad), "elsewhere": away.Elsewhere(bad.elsewhere.work, "9.9")})
    with pytest.raises(NoSuchMachine, match=r"engine of unet, copying: 1025 MiB of memory and a GPU of .* 9\.9 is asked for"):
        make(Cluster(Here()), store, bad, good, report=lambda stage, seconds=None, **_: told.append((stage, seconds)))
    assert not store.why(good.key)
    assert store.why(bad.key)
    assert [math.isnan(seconds) for stage, seconds in told if stage is bad and seconds is not None] == [True]


def test_machines_that_die_are_told(store, monkeypatch):
    runner = Here()
    monkeypatch.setattr(runner, "run", lambda *_, **__: died())
    with pytest.raises(MachineError, match="engine of unet, copying: the process died 2 times"):
        make(Cluster(runner), store, engine())


def test_machines_that_see_other_files_are_told(store, tmp_path, monkeypatch):
    task = EngineTask("engine of unet", EngineWork(Copying(), (tmp_path / "none.onnx",), Family().signature("")), "", tmp_path)
    monkeypatch.setattr(Copying, "version", "1.2")
    with pytest.raises(UnsupportedError, match=r"has release 1\.2 of the library, and the one that plans 1\.1"):
        build_engine(away.replace(task, version="1.1"))
    with pytest.raises(MachineError, match=r"does not see \S+none\.onnx\.\n.*--exchange URL"):
        build_engine(away.replace(task, version="1.2"))
    runner, done = Here(), Future()
    done.set_result(("unet.engine",))
    monkeypatch.setattr(runner, "run", lambda *_, **__: done)
    with pytest.raises(MachineError, match=r"unet\.engine was built, and is not here(.|\n)*--exchange URL"):
        make(Cluster(runner), store, engine())


def test_what_a_lost_machine_left_is_removed(tmp_path):
    (tmp_path / "graph.onnx").write_text("a graph")
    out = tmp_path / "out"
    (out / "half").mkdir(parents=True)
    (out / "half.engine").write_text("half")
    work = EngineWork(Copying(), (tmp_path / "graph.onnx",), Family().signature(""))
    assert build_engine(EngineTask("engine", work, Copying().version, Path(out))) == ("unet.engine",)
    assert [file.name for file in out.iterdir()] == ["unet.engine"]
