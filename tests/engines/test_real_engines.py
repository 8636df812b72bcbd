"""The small bundle with real graphs in the place of its functions: same pictures."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from engines import plugins, sessions
from engines.errors import UnsupportedError
from engines.parallel.picard import Picard
from engines.pipeline import Pipeline
from tests.engines import small

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def graph(part, nodes, **constants):
    """Serialize an ONNX file with the ports of a part; `nodes` are (op, inputs, output, attributes)."""
    types = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}

    def ports(side):
        return [
            onnx.helper.make_tensor_value_info(port.name, types[port.dtype], [str(dim) for dim in port.shape]) for port in side
        ]

    made = [onnx.helper.make_node(op, takes.split(" "), gives.split(" "), **attributes) for op, takes, gives, attributes in nodes]
    weights = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    whole = onnx.helper.make_graph(made, "g", ports(part.signature.inputs), ports(part.signature.outputs), weights)
    return onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def graphs():
    parts = small.draft().parts
    return {
        "text_encoder": graph(
            parts["text_encoder"],
            [
                ("Cast", "tokenizer_ids", "numbers", {"to": onnx.TensorProto.FLOAT}),
                ("ReduceMean", "numbers last", "mean", {}),
                ("Div", "mean sixteen", "prompt_embeds", {}),
            ],
            last=np.array([2]),
            sixteen=np.float32(16),
        ),
        "unet": graph(
            parts["unet"],
            [
                ("Split", "prompt_embeds", "negative positive", {"axis": 1, "num_outputs": 2}),
                ("Sub", "positive negative", "difference", {}),
                ("Unsqueeze", "guidance_scale two", "scale", {}),
                ("Mul", "difference scale", "steered", {}),
                ("Add", "negative steered", "steer3", {}),
                ("Unsqueeze", "steer3 three", "steer", {}),
                ("Unsqueeze", "timestep axes", "time4", {}),
                ("Div", "time4 thousand", "time", {}),
                ("Add", "latent steer", "moved", {}),
                ("Add", "moved time", "late", {}),
                ("Tanh", "late", "model_output", {}),
            ],
            two=np.array([1, 2]),
            three=np.array([3]),
            axes=np.array([1, 2, 3]),
            thousand=np.float32(1000),
        ),
        "vae_decoder": graph(
            parts["vae_decoder"],
            [
                ("Transpose", "latent", "last", {"perm": [0, 2, 3, 1]}),
                ("Slice", "last zero three channel", "rgb", {}),
                ("Resize", "rgb  scales", "big", NEAREST),
                ("Div", "big four", "quarter", {}),
                ("Add", "quarter half", "grey", {}),
                ("Clip", "grey black white", "image", {}),
            ],
            zero=np.array([0]),
            three=np.array([3]),
            channel=np.array([3]),
            scales=np.array([1, small.FACTOR, small.FACTOR, 1], np.float32),
            four=np.float32(4),
            half=np.float32(0.5),
            black=np.float32(0),
            white=np.float32(1),
        ),
    }


@pytest.fixture
def real(tmp_path):
    return small.make(tmp_path / "real", graphs=graphs())


def test_real_engines_make_the_pictures_of_the_functions(real, pipeline):
    wishes = {"negative_prompt": "sea", "height": 64, "width": 32, "steps": 4, "guidance_scale": 3.0, "seed": 2}
    prompts = ["a red square", "the blue circle", "a"]
    with Pipeline.open(real.folder, threads=1) as opened:
        made = opened.generate(prompts, **wishes)
    for one, other in zip(made, pipeline.generate(prompts, **wishes), strict=True):
        assert one.size == (32, 64)
        assert np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max() <= 1


def test_the_command_line_makes_a_picture(real, tmp_path):
    out = tmp_path / "out.png"
    command = [
        sys.executable,
        "-m",
        "engines",
        str(real.folder),
        "a red red red red square",
        "-o",
        str(out),
        "--backend",
        "onnxruntime",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    assert "the model does not read its end: 'red square'" in done.stderr
    with Image.open(out) as made:
        assert made.size == (32, 32)
        assert made.text["digest"] == real.manifest.model


def test_low_memory_holds_one_network_at_a_time(tmp_path, real, monkeypatch):
    frugal, held, seen = small.make(tmp_path / "frugal", graphs=graphs(), low_memory=True), set(), []
    kind = plugins.load("backends", "onnxruntime")
    plain = kind.open

    def opening(self, files, signature):
        engine = plain(self, files, signature)
        name, leave = files[0].stem, engine.__exit__
        held.add(name)
        seen.append(set(held))

        class Noted(type(engine)):
            def __exit__(self, *exception):
                held.remove(name)
                leave(*exception)

        engine.__class__ = Noted
        return engine

    monkeypatch.setattr(kind, "open", opening)
    with Pipeline.open(real.folder) as usual:
        (want,) = usual.generate("a red square", seed=3)
        assert held == {"text_encoder", "unet", "vae_decoder"}
    assert held == set()
    del seen[:]
    with Pipeline.open(frugal.folder) as pipeline:
        for _ in range(2):
            (image,) = pipeline.generate("a red square", seed=3)
            np.testing.assert_array_equal(np.asarray(image), np.asarray(want))
        assert seen == [{"text_encoder"}, {"unet"}, {"vae_decoder"}] * 2
    assert held == set()
    with pytest.raises(UnsupportedError, match="built with low_memory"), Pipeline.open(frugal.folder, devices=2):
        pytest.fail("it opened")


@pytest.mark.parametrize("low_memory", [False, True])
def test_threads_that_share_a_pipeline_make_their_own_pictures(tmp_path, monkeypatch, low_memory):
    folder = small.make(tmp_path / "shared", graphs=graphs(), low_memory=low_memory).folder
    kind = plugins.load("backends", "onnxruntime")
    plain, opened = kind.open, []
    monkeypatch.setattr(kind, "open", lambda self, files, *more: opened.append(files[0].stem) or plain(self, files, *more))
    wishes = [{"prompts": prompt, "seed": 7 * seed} for seed, prompt in enumerate(["a red square", "the blue circle", "a sea"])]
    start = threading.Barrier(len(wishes), timeout=60)

    def draw(wish):
        start.wait()
        return [np.asarray(pipeline.generate(**wish)[0]) for _ in range(4)]

    with Pipeline.open(folder) as pipeline:
        want = [np.asarray(pipeline.generate(**wish)[0]) for wish in wishes]
        del opened[:]
        with ThreadPoolExecutor(len(wishes)) as threads:
            got = list(threads.map(draw, wishes))
    for pictures, alone in zip(got, want, strict=True):
        for made in pictures:
            np.testing.assert_array_equal(made, alone)
    # A picture has the one network in memory to itself, so that none is opened for every step.
    assert opened == ["text_encoder", "unet", "vae_decoder"] * 4 * len(wishes) * low_memory


def test_threads_that_call_single_networks_find_them_open(tmp_path):
    folder = small.make(tmp_path / "frugal", graphs=graphs(), low_memory=True).folder
    with Pipeline.open(folder) as pipeline, ThreadPoolExecutor(2) as threads:
        want = [pipeline.encode(["a red square"]), pipeline.decode(np.ones((1, 4, 4, 4), np.float32))]
        encoded = threads.map(lambda _: pipeline.encode(["a red square"])["prompt_embeds"], range(20))
        decoded = threads.map(lambda _: pipeline.decode(np.ones((1, 4, 4, 4), np.float32)), range(20))
        for made in encoded:
            np.testing.assert_array_equal(made, want[0]["prompt_embeds"])
        for made in decoded:
            np.testing.assert_array_equal(made, want[1])


def test_a_network_that_is_opened_late_is_opened_once():
    names = []

    def slow():
        time.sleep(0.05)
        names.append("opened")
        return dict

    once = sessions._once(slow)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: once(), range(4)))
    assert names == ["opened"]
    assert found == [dict] * 4


def test_two_sessions_make_what_one_makes(real, pipeline):
    wishes = {"height": 64, "width": 32, "steps": 4, "seed": 2, "parallel": Picard(window=3, tolerance=0)}
    prompts = ["a red square", "the blue circle", "a"]
    with Pipeline.open(real.folder, threads=1, devices=2) as two, Pipeline.open(real.folder, threads=1) as one:
        split, whole = two.generate(prompts, **wishes), one.generate(prompts, **wishes)
    for first, other, plain in zip(split, whole, pipeline.generate(prompts, **{**wishes, "parallel": None}), strict=True):
        np.testing.assert_array_equal(np.asarray(first), np.asarray(other))
        assert first.info == other.info
        assert np.abs(np.asarray(first, np.int16) - np.asarray(plain, np.int16)).max() <= 1
