"""The flow, on a runner that builds nothing: once each, whatever failed or was killed before."""

from concurrent.futures import Future
from dataclasses import replace

import pytest

from engines.errors import MachineError, MissingDependency, ParityError, UnsupportedError
from exporter.cluster.resources import ANYTHING, Resources
from exporter.cluster.runner import NoSuchMachine, WorkerDied
from exporter.stages.store import Store
from exporter.sweep import run as module
from exporter.sweep.build_point import build_point
from exporter.sweep.remote import RemoteFolder
from exporter.sweep.result import BuildFacts, Measured
from exporter.sweep.run import sweep
from exporter.sweep.spec import Level, SearchOptions, load
from tests.exporter.sweep.test_spec import RECIPE, SWEEP


class Told:
    """Answers as workers would, and keeps what it was asked."""

    width = 1

    def __init__(self):
        self.built, self.measured, self.fails, self.asked = [], [], {}, []

    def run(self, function, task, *, alone=False, asked=ANYTHING):
        self.asked.append(asked)
        assert alone == (function is not build_point)
        future = Future()
        if function is build_point:
            self.built.append(task.assignments)
            task.out.mkdir(parents=True, exist_ok=True)
            answer = self.fails.get(task.assignments)
            answer = answer or BuildFacts(seconds=1, whole_seconds=9, size=10, parameters=5, multiply_adds={"unet": 7})
        else:
            assert task.bundle.is_dir()
            assert task.base.is_dir()
            self.measured.append((task.name, task.is_base))
            answer = self.fails.get(task.run.steps) or Measured(
                seconds=(0.1, 0.2, 0.3),
                base_seconds=(0.2, 0.4, 0.6),
                memory=1000,
                evaluations=4,
                multiply_adds=28,
                scores={"psnr": (30.0, 32.0), "ssim": (0.9, 1.0)},
                pictures=("a.webp",),
            )
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "plan_digest", lambda point: f"plan of {point.bundle}")
    (tmp_path / "base.yaml").write_text(RECIPE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return load(tmp_path / "sweep.yaml")


@pytest.fixture
def go(asked, tmp_path):
    def call(runner, said=None, **options):
        store = Store(tmp_path / "store")
        return sweep(options.pop("asked", asked), tmp_path / "out", runner, store, (said if said is not None else []).append)

    return call


def test_every_recipe_is_built_once_and_every_point_measured_once(go, tmp_path):
    runner, said = Told(), []
    rows = go(runner, said)
    assert len(rows) == 9
    assert len(runner.built) == len(set(runner.built)) == 5
    assert runner.built[0] == ()  # the base first
    assert runner.measured[0][1]
    assert [is_base for _, is_base in runner.measured].count(True) == 1
    assert len(runner.measured) == len(set(runner.measured)) == 9
    assert rows[0].result.value("latency") == 0.2
    assert rows[0].result.value("speedup") == 2.0
    assert rows[0].result.value("psnr") == 31.0
    assert rows[0].result.value("size") == 10
    assert said[0] == "9 points; 0 are measured already"
    assert said[-1] == "9 of 9  DDIMScheduler · bf16 · steps 2: latency 200 ms, PSNR 31, bundle 0.0 MB"
    assert not (tmp_path / "out" / "bundles").exists()


def test_a_second_run_does_nothing(go):
    first, second = go(Told()), Told()
    said = []
    assert go(second, said) == first
    assert (second.built, second.measured, said) == ([], [], ["9 points; 9 are measured already"])


def test_another_price_measures_nothing_again(go, asked):
    go(Told())
    second = Told()
    rows = go(second, asked=replace(asked, price=36.0))
    assert (second.built, second.measured) == ([], [])
    assert rows[0].result.value("cost") == pytest.approx(2.0)
    assert go(second)[0].result.value("cost") is None


def test_a_run_that_was_killed_goes_on(go):
    class Killed(Told):
        def run(self, function, task, **how):
            if len(self.measured) == 4:
                raise KeyboardInterrupt
            return super().run(function, task, **how)

    first, second = Killed(), Told()
    with pytest.raises(KeyboardInterrupt):
        go(first)
    go(second)
    assert not set(first.measured) & set(second.measured)
    assert len({*first.measured, *second.measured}) == 9


def test_tasks_ask_for_the_machine_that_their_point_does(go, asked):
    runner, wide = Told(), Resources(cpus=2)
    ada = {"sampler.scheduler": {**asked.axes["sampler.scheduler"], "ada": Level("ada", {"resources.gpu": "8.9"})}}
    go(runner, asked=replace(asked, resources=wide, axes={**asked.axes, **ada}, grids=({"sampler.scheduler": ("ada",)},)))
    assert runner.asked == [wide, wide, Resources(cpus=2, gpu="8.9"), Resources(cpus=2, gpu="8.9")]


def test_a_machine_that_is_not_there_may_be_there_the_next_time(go):
    first, second = Told(), Told()
    first.fails = {2: NoSuchMachine("none has it")}
    failed = [row for row in go(first) if row.result.failed]
    assert {row.result.failure for row in failed} == {"none has it"}
    go(second)
    assert len(second.measured) == len(failed) == 4


def test_another_machine_goes_on_with_what_lies_behind_a_url(asked, tmp_path, monkeypatch):
    first, second, store = Told(), Told(), Store(tmp_path / "store")
    for runner, machine in ((first, "one"), (second, "other")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        remote = RemoteFolder.of(f"file://{tmp_path}/there")
        if runner is second:  # what was lost there on the way, or is of an older file
            next(iter((tmp_path / "there" / "points").iterdir())).unlink()
        rows = sweep(asked, remote.local, runner, store, remote=remote)
    assert len(rows) == 9
    assert len(first.measured) == 9
    assert len(second.measured) == 1
    assert len(list((tmp_path / "there" / "points").iterdir())) == 9


def test_a_failure_is_a_result_and_not_the_end(go):
    runner = Told()
    wrong = ('sampler.scheduler="DDIMScheduler"', 'components.unet.precision="bf16"')
    runner.fails = {wrong: UnsupportedError("no such op\nsecond line")}
    said = []
    rows = {row.point.name: row.result for row in go(runner, said)}
    failed = {name for name, result in rows.items() if result.failed}
    assert failed == {"DDIMScheduler · bf16", "DDIMScheduler · bf16 · steps 2"}
    assert rows["DDIMScheduler · bf16"].failure == "no such op\nsecond line"
    assert rows["DDIMScheduler · bf16"].value("latency") is None
    assert "9 of 9  DDIMScheduler · bf16 · steps 2: failed (build): no such op" in said
    second = Told()
    go(second)
    assert second.built == []  # it would fail again


@pytest.mark.parametrize("error", [MissingDependency("openvino", "openvino"), WorkerDied("signal 9")])
def test_what_may_go_well_another_time_is_tried_again(go, error):
    runner = Told()
    runner.fails = {2: error}
    rows = go(runner)
    assert {row.result.failed for row in rows} == {"", "measure"}
    assert rows[-1].result.build is not None
    second = Told()
    go(second)
    assert len(second.measured) == 4


def test_a_fault_of_ours_is_called_so(go):
    runner = Told()
    runner.fails = {2: KeyError("x")}
    runner.fails[2].__cause__ = RuntimeError("where it was in the worker")
    assert go(runner)[-1].result.failure == "a fault of this program: KeyError: 'x'\nwhere it was in the worker"


def test_of_a_blame_table_the_sentence_comes_first(go):
    runner = Told()
    runner.fails = {2: ParityError("unet\n  table\n\n1 of 9 comparisons are out of limits.")}
    assert go(runner)[-1].result.failure == "1 of 9 comparisons are out of limits.\n\nunet\n  table"


def test_a_full_disk_ends_it_and_what_was_finished_is_kept(go):
    runner = Told()
    runner.fails = {2: MachineError("the disk is full")}
    with pytest.raises(MachineError, match="the disk is full"):
        go(runner)
    assert len(runner.measured) == 3  # the base, one more, and the one that failed: the others were not begun
    second = Told()
    go(second)
    assert len(second.measured) == 7


@pytest.mark.parametrize("fails", [{(): UnsupportedError("no base")}, {None: UnsupportedError("no base")}])
def test_a_base_that_cannot_be_had_ends_it(go, fails):
    runner = Told()
    runner.fails = fails
    with pytest.raises(UnsupportedError, match="no base"):
        go(runner)
    assert len(runner.built) == 1


@pytest.mark.usefixtures("asked")
def test_other_prompts_or_another_plan_are_measured_again(go, monkeypatch, tmp_path):
    go(Told())
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("a blue square", "a blue ring"))
    second = Told()
    go(second, asked=load(tmp_path / "sweep.yaml"))
    assert len(second.measured) == 9
    monkeypatch.setattr(module, "plan_digest", lambda point: f"{bool(point.assignments)}")
    third = Told()
    go(third)
    assert len(third.measured) == 9


def test_points_are_at_work_side_by_side_where_the_runner_is_wide(go):
    runner = Told()
    runner.width = 3
    assert len(go(runner)) == 9
    assert len(set(runner.measured)) == 9


def test_a_search_measures_as_many_as_it_may_and_goes_on_where_it_was_killed(go, asked):
    class Killed(Told):
        def run(self, function, task, **how):
            if len(self.measured) == 3:
                raise KeyboardInterrupt
            return super().run(function, task, **how)

    some = replace(asked, search=SearchOptions(points=5))
    first, second, third = Killed(), Told(), Told()
    with pytest.raises(KeyboardInterrupt):
        go(first, asked=some)
    said = []
    rows = go(second, said, asked=some)
    assert said[0] == "5 of 8 points are tried, each chosen by what the earlier ones gave"
    assert said[-1].startswith("6 of 6  ")
    assert len(rows) == len({row.point.digest for row in rows}) == 6
    assert rows[0].point.is_base
    assert not set(first.measured) & set(second.measured)
    assert go(third, asked=some) == rows
    assert (third.built, third.measured) == ([], [])


def test_a_search_of_more_than_there_is_tries_all(go, asked):
    assert len(go(Told(), asked=replace(asked, search=SearchOptions(points=50)))) == len(go(Told()))
