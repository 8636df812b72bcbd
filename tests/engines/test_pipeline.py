import numpy as np
import pytest
from PIL import Image

from engines import plugins
from engines.bundle import EngineFiles
from engines.errors import MissingDependency, UnsupportedError
from engines.pipeline import Pipeline
from engines.samplers import Cancelled
from engines.signature import Range
from tests.engines import small


def pixels(pictures):
    return [np.asarray(made) for made in pictures]


def test_one_prompt_one_picture(pipeline):
    (made,) = pipeline.generate("a red square")
    assert isinstance(made, Image.Image)
    assert (made.size, made.mode) == ((32, 32), "RGB")
    assert made.info["prompt"] == "a red square"
    assert made.info["seed"] == "0"
    assert made.info["digest"] == pipeline.bundle.manifest.model


def test_no_prompt_no_picture(pipeline):
    assert pipeline.generate([]) == []


def test_width_and_height_are_what_they_say(pipeline):
    assert pipeline.generate("a", height=64, width=32)[0].size == (32, 64)


def test_a_picture_does_not_depend_on_its_batch(pipeline):
    prompts = ["a red square", "the blue sea", "a circle", "a", "red"]
    together = pixels(pipeline.generate(prompts, seed=7))
    for index, prompt in enumerate(prompts):
        (alone,) = pipeline.generate(prompt, seed=7 + index)
        np.testing.assert_array_equal(together[index], np.asarray(alone))
        assert alone.info["seed"] == str(7 + index)


def test_a_batch_is_split_at_what_each_part_takes(bundle):
    calls = []
    Pipeline(bundle, small.networks(bundle, calls)).generate(["a"] * 5)
    assert [batch for name, batch in calls if name == "text_encoder"] == [2, 2, 1]
    assert [batch for name, batch in calls if name == "unet"] == [2, 2, 1] * 2
    assert [batch for name, batch in calls if name == "vae_decoder"] == [2, 2, 1]


def test_an_engine_with_a_fixed_batch_is_filled_up(tmp_path, monkeypatch):
    monkeypatch.setattr(small, "BATCH", Range(min=4, typical=4, max=4, multiple=2))
    bundle, calls = small.make(tmp_path / "b"), []
    fixed = Pipeline(bundle, small.networks(bundle, calls)).generate(["a", "red"] * 3)
    assert {batch for _, batch in calls} == {4}
    monkeypatch.undo()
    free = small.make(tmp_path / "c")
    for one, other in zip(fixed, Pipeline(free, small.networks(free)).generate(["a", "red"] * 3), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_seed_prompt_steering_and_steps_matter(pipeline):
    def one(prompt="a red square", **wishes):
        return np.asarray(pipeline.generate(prompt, height=64, width=32, **wishes)[0])

    first = one()
    for other in (
        one(seed=1),
        one("the blue sea"),
        one(negative_prompt="sea"),
        one(guidance_scale=7.5),
        one(steps=4),
    ):
        assert (first != other).any()
    np.testing.assert_array_equal(first, one())


def test_the_negative_branch_comes_first(pipeline):
    embeds = pipeline.encode(["sea"], "red")["prompt_embeds"]
    alone = [pipeline.encode([text], text)["prompt_embeds"][0, 0] for text in ("red", "sea")]
    np.testing.assert_array_equal(embeds[0], alone)


def test_given_noise_makes_the_picture_that_its_seed_makes(pipeline):
    noise = pipeline.seeded(5, 2, 32, 32)()
    for form in (noise, [noise], noise[None], iter([noise])):
        made = pipeline.generate(["a", "red"], noise=form)
        for one, other in zip(made, pipeline.generate(["a", "red"], seed=5), strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert "seed" not in made[0].info
    assert made[0].info["noise_sha256"] != made[1].info["noise_sha256"]


def test_noise_is_the_same_for_ever(pipeline):
    first = pipeline.seeded(1, 1, 32, 32)()
    np.testing.assert_allclose(first[0, 0, 0], NOISE, rtol=1e-6)


NOISE = [1.09168911, 0.4558267, 0.70178974, 0.28494337]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ([], "more noise than was given"),
        (np.zeros((1, 4, 4, 3), np.float32), r"noise 1 must be float32 \[1, 4, 4, 4\]"),
        (np.zeros((1, 4, 4, 4)), "got float64"),
    ],
)
def test_noise_that_does_not_fit(pipeline, noise, message):
    with pytest.raises(UnsupportedError, match=message):
        pipeline.generate("a", noise=noise)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"steps": 3}, r"no sampler of 3 steps.*there are: 2, 4 at 64x32.*--set sampler\.steps=\[3\]"),
        ({"steps": 4}, "there are: 2, 4 at 64x32"),
        ({"height": 40}, "height 40: .*16 to 64 in steps of 16 pixels"),
        ({"width": 80}, "width 80: .*16 to 64 in steps of 16 pixels"),
        ({"width": 0}, "width 0"),
        ({"seed": -2}, r"seed -2 is out of range\. Use 0 to \d+, or -1 for a random one"),
        ({"seed": 2**64}, "Use 0 to"),
        ({"guidance_scale": float("nan")}, "guidance scale nan"),
    ],
)
def test_a_wish_that_cannot_be_had_says_what_can(pipeline, wishes, message):
    with pytest.raises(UnsupportedError, match=message):
        pipeline.generate("a", **wishes)


@pytest.mark.parametrize("mode", ["none", "embedded"])
def test_guidance_that_is_not_there(tmp_path, mode):
    bundle = small.make(tmp_path / "b", mode=mode)
    pipeline = Pipeline(bundle, small.networks(bundle))
    (made,) = pipeline.generate("a")
    assert ("guidance_scale" in made.info) == (mode == "embedded")
    with pytest.raises(UnsupportedError, match="negative prompt has no effect"):
        pipeline.generate("a", negative_prompt="red")
    if mode == "none":
        with pytest.raises(UnsupportedError, match="without guidance"):
            pipeline.generate("a", guidance_scale=2.0)
    else:
        pipeline.generate("a", guidance_scale=2.0)


def test_steps_are_told(pipeline):
    seen = []
    pipeline.generate(["a", "red", "sea"], on_step=lambda step: seen.append((step.index, step.total, step.latent.shape)))
    assert seen == [(1, 2, (3, 4, 4, 4)), (2, 2, (3, 4, 4, 4))]


def test_what_on_step_raises_ends_the_sampling(bundle):
    calls = []

    def enough(_):
        raise Cancelled

    with pytest.raises(Cancelled):
        Pipeline(bundle, small.networks(bundle, calls)).generate("a", on_step=enough)
    assert [name for name, _ in calls] == ["text_encoder", "unet"]


def test_a_broken_decoder_is_named(bundle):
    networks = small.networks(bundle)
    networks["vae_decoder"] = lambda inputs: {"image": np.full((len(inputs["latent"]), 32, 32, 3), np.nan, np.float32)}
    with pytest.raises(UnsupportedError, match="decoder returned NaN"):
        Pipeline(bundle, networks).generate("a")


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
    with pytest.raises(MissingDependency, match="beta"), Pipeline.open(bundle.folder):
        pass
    assert list(dict.fromkeys(tried)) == ["onnxruntime", "alpha", "beta"]
    with pytest.raises(MissingDependency, match="alpha"), Pipeline.open(bundle.folder, "alpha"):
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


@pytest.mark.parametrize("wish", ["adaptive:relative=1,absolute=1", "ode:relative=0.1", "predictor_corrector:steps=5"])
def test_a_sampler_that_chooses_its_own_steps(pipeline, bundle, wish):
    calls = []
    counting = Pipeline(bundle, small.networks(bundle, calls))
    together = counting.generate(["a red square", "the blue sea", "a circle"], seed=7, sampler=wish)
    counts = [int(made.info["evaluations"]) for made in together]
    assert sum(counts) <= sum(batch for name, batch in calls if name == "unet")
    for index, prompt in enumerate(["a red square", "the blue sea", "a circle"]):
        (alone,) = pipeline.generate(prompt, seed=7 + index, sampler=wish)
        np.testing.assert_array_equal(np.asarray(together[index]), np.asarray(alone))
        assert alone.info["evaluations"] == together[index].info["evaluations"]
    assert together[0].info["sampler"] == wish
    assert "steps" not in together[0].info


def test_evaluations_of_a_compiled_sampler_are_told_too(pipeline):
    (made,) = pipeline.generate("a", steps=2)
    assert (made.info["steps"], made.info["evaluations"]) == ("2", "2")


def test_steps_and_a_sampler_are_not_both_asked_for(pipeline):
    with pytest.raises(UnsupportedError, match=r"steps 2 are those of a compiled sampler; 'ode' has its own"):
        pipeline.generate("a", steps=2, sampler="ode")


def test_a_bundle_of_before_has_no_process_and_plays_its_tables(tmp_path):
    old = small.make(tmp_path / "old", process=None)
    assert old.manifest.process is None
    pipeline = Pipeline(old, small.networks(old))
    pipeline.generate("a")
    with pytest.raises(UnsupportedError, match="holds no noise process"):
        pipeline.generate("a", sampler="adaptive")
