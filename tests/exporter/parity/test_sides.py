"""What a value of a graph should be and what it is, worked out by hand; each is computed once."""

import numpy as np
import onnx_ir as ir
import pytest

from exporter.parity import sides
from exporter.parity.cut import cut
from exporter.parity.layers import Layers
from exporter.parity.metrics import PERFECT
from exporter.parity.sides import Sides
from tests.exporter.graph import small

X = np.array([0.5, -3.0], np.float32)
LINES = "a = Mul(x, two)", "b = Relu(a)", "y = Add(b, one)"
#: By hand: doubled, cut off, and one added.
VALUES = {"x": X, "a": np.array([1, -6]), "b": np.array([1, 0]), "y": np.array([2, 1])}


def layers(*lines):
    return Layers(small.model(*(lines or LINES)))


def as_asked(names):
    return {name: VALUES[name].astype(np.float32) for name in names}


@pytest.fixture
def asked():
    return []


@pytest.fixture
def both(asked):
    """The graph without a fault, and what is asked of its right side."""
    return Sides(layers(), {"x": X}, lambda names: asked.append([*names]) or as_asked(names), sides.reference())


class Doubling:
    """A backend that says twice what the reference says of every output, and keeps what it was given."""

    def __init__(self):
        self.built = []

    def build(self, file, signature, folder):
        self.built.append((signature, folder))
        assert file.parent == folder
        return [file]

    def open(self, files, signature):
        from contextlib import contextmanager

        from engines import plugins

        @contextmanager
        def opened():
            with plugins.load("backends", "onnxruntime")(graph_optimization="none").open(files, signature) as own:
                yield lambda feeds: {name: 2 * array for name, array in own(feeds).items()}

        return opened()


def test_a_graph_is_run_as_it_is_written():
    play = sides.reference()
    found = play(cut(layers().model, {"x": X}, ["a", "y"]))
    assert {name: array.tolist() for name, array in found.items()} == {"a": [1, -6], "y": [2, 1]}


def test_of_a_graph_is_what_it_says_of_any_value():
    right = sides.of_graph(layers(), {"x": X})
    assert {name: array.tolist() for name, array in right(["b"]).items()} == {"b": [1, 0]}


def test_an_engine_is_built_for_the_very_shapes_of_the_part():
    backend = Doubling()
    found = sides.engine(backend)(cut(layers().model, {"x": X}, ["b", "y"]))
    assert {name: array.tolist() for name, array in found.items()} == {"b": [2, 0], "y": [4, 2]}
    ((signature, folder),) = backend.built
    assert [(port.name, port.shape) for port in signature.outputs] == [("b", (2,)), ("y", (2,))]
    assert not folder.exists(), "what was built is not left lying"


def test_what_is_right_is_asked_for_once(both, asked):
    assert both.want(["a", "x"])["a"].tolist() == [1, -6]
    assert both.want(["x"])["x"] is X, "what it is fed with is known"
    assert both.want(["a", "b"])["b"].tolist() == [1, 0]
    assert asked == [["a"], ["b"]]


def test_what_is_kept_is_bounded(both, asked, monkeypatch):
    monkeypatch.setattr(sides, "_KEPT", 7)
    both.want(["a"])
    both.want(["a"])  # eight bytes are too many to keep
    assert asked == [["a"], ["a"]]


def test_a_graph_without_a_fault_agrees(both):
    assert both.measure(["a", "b", "y"]) == {"a": PERFECT, "b": PERFECT, "y": PERFECT}


def test_a_fault_is_measured_where_it_is_and_behind_it(both):
    wrong = small.model("a = Mul(x, two)", "b = Abs(a)", "y = Add(b, one)")
    both.play = lambda part: sides.reference()(cut(Layers(wrong).model, part.feeds, [*part.ports]))
    found = both.measure(["a", "b", "y"])
    assert found["a"] == PERFECT
    # [1, 6] instead of [1, 0]: mean square 18, range 1. The same 6 is off behind it.
    assert found["b"] == pytest.approx(10 * np.log10(1 / 18), abs=1e-4)
    assert found["y"] == found["b"]


def test_what_was_seen_elsewhere_is_not_played_again(both):
    def never(_):
        raise AssertionError("it was seen")

    both.play, both.seen = never, lambda names: {name: VALUES[name] * 0 for name in names}
    assert both.measure(["b"])["b"] == pytest.approx(10 * np.log10(1 / 0.5), abs=1e-4)


def test_a_part_is_fed_with_what_is_right_whatever_came_before(both, asked):
    """The end of the graph is right by itself, though a value in front of it is not."""
    fed = []
    play = both.play
    both.play = lambda part: fed.append({name: array.tolist() for name, array in part.feeds.items()}) or play(part)
    assert both.alone(["y"]) == PERFECT
    assert fed == [{"b": [1, 0]}]
    assert both.alone(["b", "y"]) == PERFECT
    assert fed[1] == {"a": [1, -6]}
    assert asked == [["b"], ["y"], ["a"]]


def test_a_part_alone_is_as_far_off_as_its_end(both):
    wrong = small.model(*LINES)
    wrong.graph.initializers["one"].const_value = ir.tensor(np.array([1, 3], np.float32), name="one")
    both.layers = Layers(wrong)
    part, want, got = both.replay(["y"])
    assert list(part.ports) == ["y"]
    assert (want["y"].tolist(), got["y"].tolist()) == ([2, 1], [2, 3])
    assert both.alone(["y"]) == pytest.approx(10 * np.log10(1 / 2), abs=1e-4)
    assert both.alone(["b"]) == PERFECT
