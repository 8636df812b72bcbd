"""Which engines are opened, on which backend, when, and until when."""

import threading

import numpy as np
import pytest
from PIL import Image

from engines import plugins, sessions
from engines.bundle import EngineFiles
from engines.errors import MissingDependency, UnsupportedError
from engines.pipeline import Pipeline
from engines.signature import Port, Range, Signature
from tests.engines import small


class Recorder:
    """A backend whose engines are the small bundle's functions; notes what is opened and closed."""

    version = "7"
    inside = "fp32"

    def __init__(self, bundle, log, **options):
        self.bundle, self.log, self.options = bundle, log, options

    def computes(self, precision):
        assert precision == "fp32"
        return self.inside

    def open(self, files, signature):
        (name,) = [name for name, part in self.bundle.manifest.parts.items() if part.signature == signature]
        self.log.append(("open", files[0].name, tuple(self.options.items())))
        return Opened(small.networks(self.bundle)[name], self.log, name)


class Opened:
    def __init__(self, function, log, name):
        self.function, self.log, self.name = function, log, name

    def __call__(self, inputs):
        return self.function(inputs)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.log.append(("close", self.name))


@pytest.fixture
def opened(bundle, monkeypatch):
    log, load = [], plugins.load

    def loaded(kind, name):
        return (lambda **options: Recorder(bundle, log, **options)) if kind == "backends" else load(kind, name)

    monkeypatch.setattr(plugins, "load", loaded)
    return log


def test_open_opens_every_engine_and_closes_it(bundle, opened):
    with Pipeline.open(bundle.folder) as pipeline:
        assert pipeline.generate("a")
        assert sorted(opened) == sorted(("open", f"{name}.onnx", (("threads", 1),)) for name in bundle.manifest.parts)
    assert len([entry for entry in opened if entry[0] == "close"]) == 3


@pytest.mark.usefixtures("opened")
def test_networks_can_be_watched(bundle):
    seen = []

    def wrap(part, backend, network):
        def call(inputs):
            seen.append((part, backend))
            return network(inputs)

        return call

    with Pipeline.open(bundle.folder, wrap=wrap) as pipeline:
        (watched,) = pipeline.generate("a")
    assert seen == [(part, "onnxruntime") for part in ("text_encoder", "unet", "unet", "vae_decoder")]
    with Pipeline.open(bundle.folder) as pipeline:
        assert pipeline.generate("a") == [watched]


def test_an_encoder_is_opened_when_an_image_is_given(tmp_path, monkeypatch):
    bundle, log = small.make(tmp_path / "b", encoder=True), []
    monkeypatch.setattr(plugins, "load", lambda kind, name, load=plugins.load: (
        (lambda **options: Recorder(bundle, log, **options)) if kind == "backends" else load(kind, name)
    ))  # fmt: skip
    with Pipeline.open(bundle.folder) as pipeline:
        assert pipeline.engine == "onnxruntime 7"
        pipeline.generate("a")
        first = {entry[1] for entry in log if entry[0] == "open"}
        assert first == {"text_encoder.onnx", "unet.onnx", "vae_decoder.onnx"}
        for _ in range(2):
            pipeline.generate("a", image=Image.new("RGB", (32, 32)))
        assert [entry[1] for entry in log if entry[0] == "open"][3:] == ["vae_encoder.onnx"]
    assert sorted(entry[1] for entry in log if entry[0] == "close") == sorted(bundle.manifest.parts)


def test_options_go_before_those_of_the_build(bundle, opened):
    with Pipeline.open(bundle.folder, "onnxruntime", threads=2, spinning=True):
        assert opened[0][2] == (("threads", 2), ("spinning", True))


def test_engines_are_closed_after_an_error(bundle, opened):
    with pytest.raises(UnsupportedError), Pipeline.open(bundle.folder) as pipeline:
        pipeline.generate("a", steps=77)
    assert len([entry for entry in opened if entry[0] == "close"]) == 3


def with_backends(folder, *names, **own):
    """Every part has engines of all these, but for those that have others of their own."""

    def engines(part, names, **options):
        return {name: EngineFiles(options=options, opset=20, files=part.onnx["20"].files, version="1") for name in names}

    entries = {
        key: part.model_copy(update={"engines": engines(part, own[key], threads=9) if key in own else engines(part, names)})
        for key, part in small.draft().parts.items()
    }
    return small.make(folder, parts=entries)


def test_a_backend_that_the_bundle_lacks(bundle, tmp_path):
    with (
        pytest.raises(UnsupportedError, match="no engines of openvino; it has onnxruntime"),
        Pipeline.open(bundle.folder, "openvino"),
    ):
        pass
    with pytest.raises(UnsupportedError, match="it has none"), Pipeline.open(with_backends(tmp_path / "b").folder):
        pass


def test_the_first_backend_whose_library_is_here_is_taken(tmp_path, monkeypatch):
    bundle, tried = with_backends(tmp_path / "b", "onnxruntime", "alpha", "beta"), []

    class Absent(Recorder):
        def open(self, *_):
            tried.append(self.log)
            raise MissingDependency(self.log, self.log)

    def load(_, name):
        return lambda: Absent(bundle, name)

    monkeypatch.setattr(plugins, "load", load)
    with pytest.raises(MissingDependency, match="onnxruntime"), Pipeline.open(bundle.folder):
        pass  # of all that are absent the default is what to install
    assert list(dict.fromkeys(tried)) == ["onnxruntime", "alpha", "beta"]
    with pytest.raises(MissingDependency, match="alpha"), Pipeline.open(bundle.folder, "alpha"):
        pass


def test_what_is_absent_is_told_before_what_runs_on_other_machines_alone(tmp_path, monkeypatch):
    bundle = with_backends(tmp_path / "b", "beta", "onnxruntime")

    class Elsewhere(Recorder):
        def open(self, *_):
            if self.log == "onnxruntime":
                raise MissingDependency(self.log, self.log)
            raise UnsupportedError("it needs a GPU; run it with the backend onnxruntime.")

    monkeypatch.setattr(plugins, "load", lambda _, name: lambda: Elsewhere(bundle, name))
    with pytest.raises(MissingDependency, match="onnxruntime"), Pipeline.open(bundle.folder):
        pass
    with pytest.raises(UnsupportedError, match="GPU"), Pipeline.open(bundle.folder, "beta"):
        pass


def test_a_part_with_a_backend_of_its_own_runs_on_it(tmp_path, monkeypatch):
    bundle, tried = with_backends(tmp_path / "b", "alpha", "onnxruntime", vae_decoder=["beta"]), []
    load = plugins.load

    def loaded(kind, name):
        if kind != "backends":
            return load(kind, name)
        own = type(name, (Recorder,), {"inside": "bf16" if name == "beta" else "fp32"})
        return lambda **options: own(bundle, tried, **{"backend": name, **options})

    monkeypatch.setattr(plugins, "load", loaded)
    assert list(bundle.manifest.runs()) == ["onnxruntime", "alpha"]
    for wanted, shared in ((None, "onnxruntime"), ("alpha", "alpha")):
        tried.clear()
        with Pipeline.open(bundle.folder, wanted, threads=2) as pipeline:
            assert pipeline.generate("a")
            assert pipeline.engine == f"{shared} 7, beta 7 bf16"
        found = {entry[1]: dict(entry[2]) for entry in tried if entry[0] == "open"}
        assert found.pop("vae_decoder.onnx") == {"backend": "beta", "threads": 9}, "options are of the backend that all share"
        assert list(found.values()) == [{"backend": shared, "threads": 2}] * len(found)
    refused = pytest.raises(UnsupportedError, match="no engines of beta; it has alpha, onnxruntime")
    with refused, Pipeline.open(bundle.folder, "beta"):
        pass


def test_every_part_may_have_a_backend_of_its_own(tmp_path):
    first, *others = small.draft().parts
    own = {first: ["alpha"], **{other: ["beta"] for other in others}}
    assert with_backends(tmp_path / "b", **own).manifest.runs() == {"beta": {part: name for part, (name,) in own.items()}}


def test_parts_without_an_engine_in_common_cannot_be_played(tmp_path):
    bundle = with_backends(tmp_path / "b", "alpha", "beta", vae_decoder=["gamma", "delta"])
    assert bundle.manifest.runs() == {}
    with pytest.raises(UnsupportedError, match="one backend for all parts"), Pipeline.open(bundle.folder):
        pass


def test_options_that_a_backend_does_not_take(bundle):
    pytest.importorskip("onnxruntime")
    problem = pytest.raises(UnsupportedError, match=r"onnxruntime does not take these options:\n  treads")
    with problem, Pipeline.open(bundle.folder, treads=1):
        pass


# ── batches


PORTS = Signature(
    inputs=(Port(name="x", shape=("batch", 2)),),
    outputs=(Port(name="y", shape=("batch", 2)),),
    dims={"batch": Range(min=2, typical=2, max=4, multiple=2)},
)


def doubling(seen):
    def network(inputs):
        seen.append(inputs["x"].copy())
        return {"y": inputs["x"] * 2}

    return network


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [2]), (2, [2]), (3, [4]), (4, [4]), (5, [4, 2]), (7, [4, 4]), (8, [4, 4]), (9, [4, 4, 2])]
)
def test_batches_are_as_large_as_the_engine_takes(count, sizes):
    seen, x = [], np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    np.testing.assert_array_equal(sessions.run([doubling(seen)], PORTS, {"x": x})["y"], 2 * x)
    assert [len(each) for each in seen] == sizes
    np.testing.assert_array_equal(np.concatenate(seen)[:count], x)
    assert all((each == x[-1]).all() for each in np.concatenate(seen)[count:]), "filled up with the last"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_several_networks_take_equal_shares_in_order(count):
    seen, x = [[], [], []], np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    outputs = sessions.run([doubling(each) for each in seen], PORTS, {"x": x})
    np.testing.assert_array_equal(outputs["y"], 2 * x)
    pieces = [len(each) for each in seen]
    assert max(pieces) - min(pieces) <= 1


def test_an_array_that_fits_is_handed_on_as_it_is():
    x = np.zeros((4, 2), np.float32)
    assert sessions.run([lambda inputs: {"y": inputs["x"]}], PORTS, {"x": x})["y"] is x


# ── turns


def test_low_memory_closes_one_network_before_it_opens_the_next(tmp_path, monkeypatch):
    bundle, log, load = small.make(tmp_path / "frugal", low_memory=True), [], plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, name: (
        (lambda **options: Recorder(bundle, log, **options)) if kind == "backends" else load(kind, name)
    ))  # fmt: skip
    with Pipeline.open(bundle.folder) as pipeline:
        assert log == []
        pipeline.generate("a")
    order = [(entry[0], entry[1].removesuffix(".onnx")) for entry in log]
    parts = ("text_encoder", "unet", "vae_decoder")
    assert order == [(what, name) for name in parts for what in ("open", "close")]
    with (
        pytest.raises(UnsupportedError, match="built with low_memory: one network at a time"),
        Pipeline.open(bundle.folder, devices=2),
    ):
        pass


def test_a_picture_s_turn_can_be_taken_again_by_its_own_thread_alone():
    manifest, seen = small.draft(low_memory=True), []

    class Drawing:
        turn = sessions.turn(manifest)

        @sessions.in_turn
        def outer(self, word, *, more):
            """What it does."""
            other = threading.Thread(target=lambda: seen.append(self.turn.acquire(blocking=False)))
            other.start()
            other.join()
            return self.inner(word) + more

        @sessions.in_turn
        def inner(self, word):
            return word * 2

    assert Drawing().outer("a", more="b") == "aab"
    assert seen == [False]
    assert Drawing.outer.__doc__ == "What it does."
    with sessions.turn(small.draft()) as free:
        assert free is None


def test_a_network_that_waits_is_opened_once_by_all_threads():
    opened, start = [], threading.Barrier(4)
    once = sessions._once(lambda: opened.append(1) or len(opened))

    def call():
        start.wait()
        assert once() == 1

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [1]
