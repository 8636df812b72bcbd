"""What users feed reaches the networks of its name, once a picture where it can; what is wrong is said before a network runs."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pydantic import ValidationError

from engines import __main__ as program
from engines.bundle import Bundle, Draft, write
from engines.errors import UnsupportedError
from engines.guidance import Guidance, Scale
from engines.images.png import save
from engines.images.provenance import ImageProvenance
from engines.inputs import Input, Preprocessing
from engines.pipeline import Pipeline
from engines.signature import Port
from tests.engines import conditioned, small
from tests.engines.images.test_init_image import image, mask


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "conditioned", **conditioned.changes())


@pytest.fixture
def calls():
    return []


@pytest.fixture
def pipeline(bundle, calls):
    return Pipeline(bundle, conditioned.networks(bundle, calls))


def one(pipeline, **wishes):
    return np.asarray(pipeline.generate("a red square", **{"inputs": {"hint": image()}, **wishes})[0])


def test_a_condition_is_computed_once_a_picture_not_once_a_step(pipeline, calls):
    pipeline.generate(["a red square", "the sea"], inputs={"hint": image(64, 32)}, height=32, width=64)
    assert [name for name, _ in calls] == ["hint_embedding", "text_encoder", "aaa_gate", "unet", "unet", "vae_decoder"]
    calls.clear()
    pipeline.generate("a", inputs={"hint": image(32, 64)}, height=64, width=32, steps=4)
    assert [name for name, _ in calls].count("unet") == 4
    assert [name for name, _ in calls].count("hint_embedding") == 1


def test_every_input_moves_the_picture(pipeline):
    first = one(pipeline)
    np.testing.assert_array_equal(first, one(pipeline))
    hint = image()
    for wish in (
        {"hint": image(seed=2)},
        {"hint": hint, "keep": mask()},
        {"hint": hint, "hint_scale": 0.5},
        {"hint": hint, "label": 3},
        {"hint": hint, "guidance_scale": 5.0},
        {"hint": hint, "image_guidance_scale": 3.0},
    ):
        assert (one(pipeline, inputs=wish) != first).any(), list(wish)


def test_the_attention_mask_reaches_the_denoiser(bundle):
    networks, seen = conditioned.networks(bundle), []
    denoise = networks["unet"]
    networks["unet"] = lambda inputs: seen.append(inputs["tokenizer_mask"]) or denoise(inputs)
    Pipeline(bundle, networks).generate("a red square", negative_prompt="sea", inputs={"hint": image()})
    assert seen[0].tolist() == [[[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]]


def test_one_value_a_picture_and_pictures_of_a_prompt(pipeline):
    hints, scales = [image(seed=seed) for seed in range(4)], [0.0, 0.5, 1.0, 1.5]
    inputs = {"hint": hints, "hint_scale": scales, "label": [4, 5]}
    made = pipeline.generate(["a", "red"], images_per_prompt=2, inputs=inputs, guidance_scale=[2.0, 3.0], seed=7)
    for index, picture in enumerate(made):
        own = {"hint": hints[index], "hint_scale": scales[index], "label": 4 + index // 2}
        scale = 2.0 + index // 2
        (alone,) = pipeline.generate(["a", "red"][index // 2], inputs=own, guidance_scale=scale, seed=7 + index)
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(alone))
        assert picture.info["input_hint_scale"] == repr(scales[index])
        assert picture.info["input_label"] == str(own["label"])
    with pytest.raises(UnsupportedError, match=r"3 hints for 2 prompts of 2 pictures each\. Give one for all, one a prompt, or"):
        pipeline.generate(["a", "red"], images_per_prompt=2, inputs={"hint": hints[:3]})


def test_the_size_is_that_of_a_picture_that_is_fed(pipeline):
    wide = pipeline.generate("a", inputs={"hint": image(64, 32)})[0]
    assert wide.size == (64, 32)
    with pytest.raises(UnsupportedError, match=r"an image of 40x32 pixels \(width x height\) does not fit\. width 40"):
        pipeline.generate("a", inputs={"hint": image(40, 32)})
    with pytest.raises(UnsupportedError, match=r"input hint: 64x32 pixels \(width x height\), and 32x32 are needed"):
        pipeline.generate("a", inputs={"hint": image(64, 32)}, height=32, width=32)


def transparent():
    made = Image.new("LA", (32, 32), (255, 255))
    made.putpixel((3, 3), (255, 0))
    return made


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"inputs": {}}, r"needs the input hint, a picture \(edges, white on black\)\. Give it: --input hint="),
        ({"inputs": {"hnt": image()}}, "no input 'hnt'; did you mean 'hint'"),
        ({"inputs": {"hint": image(), "image": image()}}, "no input 'image'"),
        ({"inputs": {"hint": "edges.png"}}, "input hint is a picture .*, and a str was given"),
        ({"inputs": {"hint": image(), "keep": transparent()}}, "input keep is transparent in places"),
        ({"inputs": {"hint": Image.new("F", (32, 32), 300.0)}}, "input hint is of float numbers from 300 to 300"),
        (
            {"inputs": {"hint": image(), "hint_scale": 2.5}},
            "input hint_scale: 2.5 is out of range; it takes at least 0 and at most 2",
        ),
        ({"inputs": {"hint": image(), "hint_scale": float("nan")}}, "input hint_scale: nan is out of range"),
        ({"inputs": {"hint": image(), "hint_scale": image()}}, "input hint_scale is a number, and a Image was given"),
        ({"inputs": {"hint": image(), "label": 2.5}}, "input label: 2.5 is no whole number"),
        ({"inputs": {"hint": image(), "label": True}}, "input label is a whole number, and a bool was given"),
        ({"inputs": {"hint": image(), "guidance_scale": 2.0}, "guidance_scale": 2.0}, "guidance_scale is given twice"),
        (
            {"inputs": {"hint": image(), "image_guidance_scale": float("inf")}},
            "image guidance scale inf is not a number to multi",
        ),
        ({"inputs": {"hint": image()}, "images_per_prompt": 0}, "0 images per prompt are none"),
        ({"inputs": {"hint": image()}, "seed": [1, 2]}, "2 seeds for 1 prompts"),
        ({"inputs": {"hint": image()}, "image": image()}, "this bundle has no VAE encoder"),
    ],
)
def test_what_is_wrong_is_said_before_a_network_runs(pipeline, calls, wishes, message):
    with pytest.raises(UnsupportedError, match=message):
        pipeline.generate("a", **wishes)
    assert calls == []


def test_a_bundle_without_inputs_says_so(tmp_path):
    plain = small.make(tmp_path / "plain", mode="none")
    with pytest.raises(UnsupportedError, match=r"this bundle has no input 'hint': it has none"):
        Pipeline(plain, small.networks(plain)).generate("a", inputs={"hint": image()})


@pytest.mark.parametrize("backend", ["onnxruntime"])
def test_real_engines_make_the_pictures_of_the_functions(tmp_path, pipeline, backend):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip(backend)
    from tests.engines.test_real_engines import graph, graphs

    real = small.make(
        tmp_path / "real", graphs=graphs() | conditioned.graphs(graph, onnx.TensorProto.FLOAT), **conditioned.changes()
    )
    inputs = {"hint": image(64, 32), "keep": mask(64, 32), "hint_scale": 0.7, "label": 2, "image_guidance_scale": 1.1}
    wishes = {"inputs": inputs, "guidance_scale": 3.0, "negative_prompt": "sea", "seed": 5}
    with Pipeline.open(real.folder, backend, threads=1) as opened:
        made = opened.generate(["a red square", "the sea", "a"], **wishes)
    for one_made, other in zip(made, pipeline.generate(["a red square", "the sea", "a"], **wishes), strict=True):
        assert np.abs(np.asarray(one_made, np.int16) - np.asarray(other, np.int16)).max() <= 1


def command(monkeypatch, pipeline):
    from contextlib import contextmanager

    @contextmanager
    def opened(*_, devices):
        assert devices == 1
        yield pipeline

    monkeypatch.setattr(Pipeline, "open", opened)
    folder = str(pipeline.bundle.folder)
    return lambda *arguments: CliRunner().invoke(program.generate, [folder, *map(str, arguments)])


def test_the_command_feeds_them_and_makes_a_picture_again(pipeline, monkeypatch, tmp_path):
    run = command(monkeypatch, pipeline)
    image().save(tmp_path / "hint.png")
    image(seed=9).save(tmp_path / "other.png")
    out, second = tmp_path / "a.png", tmp_path / "b.png"
    hint = ("--input", f"hint={tmp_path / 'hint.png'}")
    numbers = (
        "--input",
        "hint_scale=0.3",
        "--input",
        "image_guidance_scale=2.5",
        "--input",
        "guidance_scale=4",
        "--input",
        "label=7",
    )
    done = run("a red square", *hint, *numbers, "--seed", 3, "-o", out)
    assert done.exit_code == 0, done.output
    wishes = {"hint_scale": 0.3, "image_guidance_scale": 2.5, "guidance_scale": 4.0, "label": 7}
    with Image.open(out) as read:
        np.testing.assert_array_equal(np.asarray(read), one(pipeline, inputs={"hint": image(), **wishes}, seed=3))
        told = {
            name: read.text[name] for name in ("input_hint_scale", "input_image_guidance_scale", "input_label", "guidance_scale")
        }
    assert told == {"input_hint_scale": "0.3", "input_image_guidance_scale": "2.5", "input_label": "7", "guidance_scale": "4.0"}
    done = run("--from", out, *hint, "-o", second)
    assert done.exit_code == 0, done.output
    assert out.read_bytes() == second.read_bytes()
    for arguments, message in (
        ((), "was made from a hint. Give the same again"),
        (("--input", f"hint={tmp_path / 'other.png'}"), "this hint is not the one"),
        ((*hint, "--input", f"keep={tmp_path / 'other.png'}"), "was made without keep. Leave it out"),
    ):
        done = run("--from", out, *arguments, "-o", second)
        assert isinstance(done.exception, UnsupportedError), done.output
        assert message in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input", "hint"), "--input hint: write NAME=FILE or NAME=NUMBER"),
        (("--input", "hint=absent.png"), "absent.png cannot be read as a picture"),
        (("--input", "hint_scale=much"), "hint_scale is a number, and 'much' is none"),
        (("--input", "hnt=a.png"), "no input 'hnt'; did you mean 'hint'"),
        (("--input", "guidance_scale=2", "--guidance-scale", "2"), "guidance_scale is given twice"),
        (("-o", "out.gif"), "PNG, JPEG or WebP"),
    ],
)
def test_a_command_that_is_wrong(pipeline, calls, monkeypatch, arguments, message):
    done = command(monkeypatch, pipeline)("a", *arguments)
    assert isinstance(done.exception, UnsupportedError), done.output
    assert message in str(done.exception)
    assert calls == []


def test_values_may_be_repeated(pipeline, monkeypatch, tmp_path):
    run = command(monkeypatch, pipeline)
    image().save(tmp_path / "hint.png")
    hint = ("--input", f"hint={tmp_path / 'hint.png'}", "-o", tmp_path / "p.webp")
    many = (
        "--seed",
        5,
        "--seed",
        9,
        "--negative-prompt",
        "sea",
        "--negative-prompt",
        "",
        "--guidance-scale",
        2,
        "--guidance-scale",
        3,
    )
    done = run("a", "red", *many, *hint)
    assert done.exit_code == 0, done.output
    told = [ImageProvenance.read(tmp_path / f"p-{number}.webp") for number in (1, 2)]
    assert [(made.seed, made.negative_prompt, made.guidance_scale) for made in told] == [(5, "sea", 2.0), (9, "", 3.0)]
    assert run("a", "--images-per-prompt", 3, *hint, "--no-metadata").exit_code == 0
    with pytest.raises(UnsupportedError, match="does not say how it was made"):
        ImageProvenance.read(tmp_path / "p-3.webp")


def test_the_idiom_feeds_an_input_of_that_name(tmp_path, monkeypatch):
    """`--image` and `--mask` of a bundle that takes an image of its own."""
    changes = conditioned.changes()
    entry = changes["inputs"]["hint"]

    def renamed(part):
        ports = tuple(Port(name="image", shape=port.shape) if port.name == "hint" else port for port in part.signature.inputs)
        return part.model_copy(update={"signature": part.signature.model_copy(update={"inputs": ports})})

    parts = {name: renamed(part) if part.role == "condition" else part for name, part in changes["parts"].items()}
    inputs = {"image": entry, **{name: value for name, value in changes["inputs"].items() if name != "hint"}}
    bundle = small.make(tmp_path / "b", **{**changes, "parts": parts, "inputs": inputs})
    networks = conditioned.networks(bundle)
    embed = networks["hint_embedding"]
    networks["hint_embedding"] = lambda given: embed({**given, "hint": given["image"]})
    monkeypatch.setattr(type(bundle.manifest.parts["hint_embedding"].signature), "sizes", lambda _, given: {"batch": len(given)})
    pipeline = Pipeline(bundle, networks)
    by_name, by_argument = pipeline.generate("a", inputs={"image": image()})[0], pipeline.generate("a", image=image())[0]
    np.testing.assert_array_equal(np.asarray(by_name), np.asarray(by_argument))
    image().save(tmp_path / "in.png")
    run, out = command(monkeypatch, pipeline), tmp_path / "out.png"
    assert run("a", "--image", tmp_path / "in.png", "-o", out).exit_code == 0
    assert run("--from", out, "--image", tmp_path / "in.png", "-o", tmp_path / "again.png").exit_code == 0
    assert out.read_bytes() == (tmp_path / "again.png").read_bytes()


def test_a_model_that_reads_no_text(tmp_path, monkeypatch):
    parts = dict(conditioned.changes()["parts"])
    del parts["text_encoder"], parts["aaa_gate"], parts["hint_embedding"]
    label = conditioned.INPUTS["label"]
    signature = small.draft("none").parts["unet"].signature
    inputs = tuple(port for port in signature.inputs if port.name != "prompt_embeds")
    parts["unet"] = small.part("denoiser", (*inputs, label.port("label")), signature.outputs, conditioned.SIDES)
    bundle = small.make(tmp_path / "b", mode="none", parts=parts, tokenizers={}, inputs={"label": label})
    networks = small.networks(bundle)
    networks["unet"] = lambda given: {
        "model_output": given["latent"] / 2 + given["label"][:, None, None, None].astype(np.float32)
    }
    pipeline = Pipeline(bundle, networks)
    three = pipeline.generate(images_per_prompt=3, inputs={"label": [1, 2, 3]})
    assert len({np.asarray(made).tobytes() for made in three}) == 3
    with pytest.raises(UnsupportedError, match="reads no text, so a prompt has no effect"):
        pipeline.generate("a")
    done = command(monkeypatch, pipeline)("--input", "label=4", "-o", tmp_path / "out.png")
    assert done.exit_code == 0, done.output


def test_a_condition_part_draws_noise_before_the_sampler(tmp_path):
    changes = conditioned.changes()
    part = changes["parts"]["hint_embedding"]
    ports = (*part.signature.inputs, Port(name="noise", shape=small.LATENT))
    noisy = part.model_copy(update={"signature": part.signature.model_copy(update={"inputs": ports})})
    bundle = small.make(tmp_path / "b", **{**changes, "parts": {**changes["parts"], "hint_embedding": noisy}})
    networks, seen, steps = conditioned.networks(bundle), [], []
    embed = networks["hint_embedding"]
    networks["hint_embedding"] = lambda given: seen.append(given["noise"]) or embed(given)
    draws = np.random.default_rng(1).standard_normal((2, 1, 4, 4, 4), np.float32)
    Pipeline(bundle, networks).generate(
        "a", inputs={"hint": image()}, noise=draws, on_step=lambda step: steps.append(step.latent)
    )
    np.testing.assert_array_equal(seen[0], draws[0])
    np.testing.assert_array_equal(steps[0], draws[1] / 2)  # the first row of the table


def test_a_digest_tells_inputs_apart_and_a_rebuild_keeps_it(bundle):
    again = write(bundle.folder, Draft(**{name: getattr(bundle.manifest, name) for name in Draft.model_fields}))
    assert again.manifest.model == bundle.manifest.model
    scales = Guidance(mode="classifier_free", scales=(*conditioned.SCALES[:1], Scale(name="image_guidance_scale", default=9.0)))
    other = conditioned.INPUTS | {"label": conditioned.INPUTS["label"].model_copy(update={"default": 3.0})}
    models = {write(bundle.folder, Draft(**{**dict(small.draft(**conditioned.changes())), **change})).manifest.model
              for change in ({"inputs": other}, {"guidance": scales})}  # fmt: skip
    assert len(models | {bundle.manifest.model}) == 3
    assert Bundle.open(bundle.folder).manifest.inputs == conditioned.INPUTS


def test_saved_pictures_say_their_inputs(pipeline, tmp_path):
    (path,) = save(pipeline.generate("a", inputs={"hint": image()}), tmp_path / "a.jpg")
    made = ImageProvenance.read(path)
    assert made.inputs["hint_scale"] == "1.0"
    assert len(made.inputs["hint"]) == 64
    assert made.generator == "numpy"


PLAIN = Preprocessing()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "number", "shape": ("batch", 2)}, r"the shape \(batch,\)"),
        ({"kind": "integer", "shape": ("batch",), "default": 0.5}, "default 0.5 is no whole number"),
        ({"kind": "number", "shape": ("batch",), "maximum": 1, "default": 2}, "default 2 is out of range"),
        ({"kind": "number", "shape": ("batch",), "preprocessing": PLAIN}, "has no preprocessing"),
        ({"kind": "image", "shape": ("batch", 8, 8, 4), "preprocessing": PLAIN}, "1 channel or an image's 3"),
        ({"kind": "mask", "shape": ("batch", 8, 8, 3), "preprocessing": PLAIN}, "1 channel"),
        ({"kind": "image", "shape": ("batch", 8, 8, 3)}, "must say its preprocessing"),
        ({"kind": "image", "shape": ("batch", 8, 8, 3), "preprocessing": PLAIN, "default": 1.5}, "no grey from 0 to 1"),
        ({"kind": "image", "shape": ("batch", 8, 8, 3), "preprocessing": Preprocessing(mean=(0, 0))}, "one number or 3"),
        ({"kind": "image", "shape": ("batch", 8, 8, 3), "preprocessing": Preprocessing(std=(0,))}, "std not 0"),
    ],
)
def test_a_declaration_that_makes_no_sense(fields, message):
    with pytest.raises(ValidationError, match=message):
        Input(**fields)


def wired(**more):
    return {**dict(small.draft(**conditioned.changes())), **more}


def without(name):
    return {key: value for key, value in conditioned.INPUTS.items() if key != name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wired(inputs=without("hint")), "nothing feeds hint_embedding's .'hint'"),
        (wired(inputs=conditioned.INPUTS | {"more": conditioned.INPUTS["label"]}), "no network takes the input more"),
        (wired(inputs=conditioned.INPUTS | {"label": conditioned.INPUTS["hint_scale"]}), "label must be float32 .* wherever"),
        (wired(inputs=conditioned.INPUTS | {"latent": conditioned.INPUTS["label"]}), "two sources feed one name"),
        (wired(inputs=conditioned.INPUTS | {"gate": conditioned.INPUTS["label"]}), "two sources feed one name"),
        (wired(guidance=Guidance(mode="classifier_free", scales=conditioned.SCALES[:1])), "nothing feeds unet's"),
        (
            wired(guidance=Guidance(mode="classifier_free", scales=(*conditioned.SCALES, Scale(name="more", default=1.0)))),
            r"no denoiser takes the guidance scales \['more'\]",
        ),
    ],
)
def test_a_wiring_that_cannot_be_played(content, message):
    with pytest.raises(ValidationError, match=message):
        Draft(**content)


def test_two_scales_of_one_name():
    with pytest.raises(ValidationError, match="two guidance scales share a name"):
        Guidance(mode="classifier_free", scales=conditioned.SCALES[:1] * 2)
