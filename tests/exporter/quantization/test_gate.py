"""What a quantized network must win, and what an engine must hold."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from engines.backends import OperatorRun
from engines.errors import MissingDependency, SpeedError, UnsupportedError
from exporter.passes.quantize import Quantize
from exporter.quantization import gate
from exporter.quantization.gate import Candidate, Comparison, GateDecision


def pair(size=50, plain=100, ratio=1.5, seconds=(0.002, 0.003), whole=3, steps=4, **changes):
    return Comparison("openvino", size * 1_000_000, plain * 1_000_000, seconds, ratio, whole, steps, **changes)


@pytest.mark.parametrize(
    ("made", "gate_of", "kept"),
    [
        (pair(ratio=1.0), "speed", True),
        (pair(ratio=0.999), "speed", False),
        (pair(ratio=0.5), "size", True),
        (pair(size=95), "size", True),
        (pair(size=96), "size", False),
        (pair(ratio=None, seconds=None), "speed", True),
        (pair(size=100, ratio=None, seconds=None), "speed", False),  # where it does not run, its files must be smaller
    ],
)
def test_what_wins(made, gate_of, kept):
    assert made.wins(gate_of) == kept


def test_the_figures_are_told():
    size = "50.00 MB against 100.00 MB unquantized (50%)"
    assert pair().summary == (
        f"openvino: 1.50 times as fast (2 ms against 3 ms), {size}; 3 of 4 steps compute in whole numbers"
    )  # fmt: skip
    assert pair(steps=0).summary.endswith(size)
    away = pair(seconds=None, ratio=None, unable="no GPU here")
    assert away.summary == f"openvino: {size}; speed not measured: no GPU here"


GRAPHS = (25_000_000, 100_000_000)


@pytest.mark.parametrize("size", [25, 60])
def test_an_engine_that_saves_at_least_half_of_what_was_asked(size):
    gate._audit("unet", Quantize(format="int8"), pair(size=size), GRAPHS)


def test_an_engine_that_holds_wider_numbers_is_refused():
    told = r"unet: the int8 engine of openvino has 70\.00 MB, 30\.00 MB less than unquantized; 75\.00 MB were asked for"
    with pytest.raises(UnsupportedError, match=told):
        gate._audit("unet", Quantize(format="int8"), pair(size=70), GRAPHS)
    # A target that halves weights anyway has half as much to lose.
    gate._audit("unet", Quantize(format="int8"), pair(size=30, plain=50), GRAPHS)
    with pytest.raises(UnsupportedError, match=r"37\.50 MB were asked for"):
        gate._audit("unet", Quantize(format="int8"), pair(size=32, plain=50), GRAPHS)


def test_an_engine_that_computes_in_floating_point_is_refused():
    with pytest.raises(UnsupportedError, match="none of the 4 steps of openvino's int8 engine computes in whole numbers"):
        gate._audit("unet", Quantize(format="int8"), pair(whole=0), GRAPHS)
    gate._audit("unet", Quantize(format="int8"), pair(whole=0, steps=0), GRAPHS)  # a library that does not tell its steps
    gate._audit("unet", Quantize(format="int8-weights"), pair(whole=0), GRAPHS)


class Racing:
    """A backend whose engines take as long as their file says, on a clock of its own."""

    runs_on_cpu = True
    carriers = frozenset({"QuantizeLinear", "Reorder"})

    def __init__(self, monkeypatch, trouble=None):
        self.now, self.calls, self.open_now, self.trouble = 0.0, [], 0, trouble
        monkeypatch.setattr(gate, "time", SimpleNamespace(perf_counter=lambda: self.now))

    @contextmanager
    def open(self, files, signature):
        assert signature == "signature"
        if self.trouble:
            raise self.trouble

        def engine(inputs):
            assert inputs == "inputs"
            self.calls.append(files[0].name)
            self.now += float(files[0].read_text()[:8]) * (9 if len(self.calls) <= 4 else 1)  # the first calls are slow

        self.open_now += 1
        yield engine
        self.open_now -= 1

    def profile(self, *_):
        operators = ("Conv", "int8"), ("Conv", "float"), ("QuantizeLinear", "int8"), ("Reorder", "int8"), ("Mul", "int8")
        return [OperatorRun(*each, 1) for each in operators]


def candidate(backend, files):
    return Candidate("openvino", backend, files[0], files[1], [], [])


@pytest.fixture
def files(tmp_path):
    for name, seconds in (("quantized", "0.500000"), ("plain", "0.750000 and more")):
        (tmp_path / name).write_text(seconds)
    return [[tmp_path / "quantized"], [tmp_path / "plain"]]


def test_a_race_takes_turns_and_counts_neither_the_first_calls_nor_moving_numbers(monkeypatch, files):
    backend = Racing(monkeypatch)
    found = gate._pair(candidate(backend, files), "signature", "inputs")
    assert found == Comparison("openvino", 8, 17, (0.5, 0.75), 1.5, 2, 3)
    assert backend.calls[:4] == ["plain", "quantized", "quantized", "plain"]
    assert backend.calls.count("plain") == backend.calls.count("quantized") >= 7
    assert backend.now >= 20
    assert backend.open_now == 0


def test_a_race_ends_after_60_rounds(monkeypatch, files):
    for (file,) in files:
        file.write_text("0.000001")
    backend = Racing(monkeypatch)
    gate._pair(candidate(backend, files), "signature", "inputs")
    assert len(backend.calls) == 2 * 60


@pytest.mark.parametrize("trouble", [UnsupportedError("needs an NVIDIA GPU\nmore"), MissingDependency("tensorrt", "tensorrt")])
def test_a_target_that_does_not_run_here_is_not_measured(monkeypatch, files, trouble):
    backend = Racing(monkeypatch, trouble)
    with pytest.raises(type(trouble)):
        gate._pair(candidate(backend, files), "signature", "inputs")
    backend.runs_on_cpu = False
    found = gate._pair(candidate(backend, files), "signature", "inputs")
    assert (found.seconds, found.ratio, found.size, found.plain_size) == (None, None, 8, 17)
    assert found.unable == str(trouble).splitlines()[0]


def test_a_race_decides_and_says_why(monkeypatch, files):
    backend = Racing(monkeypatch)
    monkeypatch.setattr(gate, "_audit", lambda *_: None)  # the files are no engines
    signature = SimpleNamespace(inputs=(), extent=lambda _: {})
    backend.open = contextmanager(lambda files, _: iter([lambda _inputs: setattr(backend, "now", backend.now + length(files))]))

    def length(files):
        return float(files[0].read_text()[:8])

    graphs = [[file] for (file,) in files]
    won = Candidate("openvino", backend, *files, *graphs)
    lost = Candidate("openvino", backend, *files[::-1], *graphs)
    options = {"precision": "fp32", "cases": (), "limits": {}}
    assert gate.keep_or_fall_back("unet", Quantize(format="int8-weights", gate="speed"), [won], signature, **options).kept
    with pytest.raises(SpeedError, match=r"not faster on openvino"):
        gate.keep_or_fall_back("unet", Quantize(format="int8-weights", gate="speed"), [lost], signature, **options)
    fallen = gate.keep_or_fall_back(
        "unet", Quantize(format="int8-weights", gate="speed", fallback="fp32"), [lost], signature, **options
    )
    assert not fallen.kept
    assert "kept in fp32, because" in fallen.notes[-1]


def test_a_decision_is_read_as_it_was_written(tmp_path):
    made = GateDecision(kept=False, notes=("unet: …", "kept in fp32"))
    made.write(tmp_path / "gate.json")
    assert GateDecision.read(tmp_path / "gate.json") == made


def test_sizes(files):
    assert gate._size([file for each in files for file in each]) == 8 + 17
    assert np.isclose(gate.SMALLER, 0.95)
