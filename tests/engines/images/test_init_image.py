import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engines.errors import UnsupportedError
from engines.images import init_image
from engines.images.init_image import InitImage
from engines.pipeline import Pipeline
from tests.engines import small


def image(width=32, height=32, seed=1):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8), "RGB")


def mask(width=32, height=32, white=(slice(8, 24), slice(8, 32))):
    pixels = np.zeros((height, width), np.uint8)
    pixels[white] = 255
    return Image.fromarray(pixels, "L")


def array(made):
    return np.asarray(made, np.int16)


def test_an_image_is_started_from(with_encoder):
    (made,) = with_encoder.generate("a red square", image=image(), strength=0.5, seed=3)
    (other,) = with_encoder.generate("a red square", image=image(seed=2), strength=0.5, seed=3)
    assert made.size == (32, 32)
    assert (array(made) != array(other)).any()
    assert made.info["strength"] == "0.5"
    assert made.info["image_sha256"] != other.info["image_sha256"]
    assert "mask_sha256" not in made.info


def test_the_less_strength_the_nearer_to_the_image(with_encoder):
    given, steps = image(64, 64), []
    bundle = with_encoder.bundle
    cells = array(given).reshape(8, 8, 8, 8, 3).mean((1, 3)).repeat(8, 0).repeat(8, 1)
    wishes = {"image": given, "steps": 2, "on_step": lambda step: steps.append(step.total)}
    far = [np.abs(array(with_encoder.generate("a", strength=s, **wishes)[0]) - cells).mean() for s in (0.5, 1.0)]
    assert far[0] < far[1]
    assert steps == [1, 2, 2]
    assert bundle.manifest.samplers[0].image


def test_the_encoder_draws_before_the_sampler(with_encoder):
    bundle, seen = with_encoder.bundle, []
    networks = small.networks(bundle)
    encode = networks["vae_encoder"]
    networks["vae_encoder"] = lambda inputs: seen.append(inputs["noise"].copy()) or encode(inputs)
    draws = np.random.default_rng(4).standard_normal((2, 2, 4, 4, 4), np.float32)
    made = Pipeline(bundle, networks).generate(["a", "red"], image=image(), noise=draws)
    np.testing.assert_array_equal(seen[0], draws[0])
    again = Pipeline(bundle, networks).generate(["a", "red"], image=image(), noise=draws)
    np.testing.assert_array_equal(array(made[1]), array(again[1]))
    with pytest.raises(UnsupportedError, match=r"more noise than was given.*one more in front, for the encoder"):
        with_encoder.generate(["a", "red"], image=image(), noise=draws[0])


@pytest.mark.parametrize(("given", "skipped"), [({"image": (1, 2)}, (1, 0)), ({"mask": (1, 3)}, (0, 1)), ({}, (0, 0))])
def test_draws_that_the_source_throws_away_are_thrown_away(with_encoder, given, skipped):
    """`start_order` of an image alone and within a mask: the encoder's draw, and then the latent's."""
    bundle, seen = with_encoder.bundle, []
    about = bundle.manifest.model_copy(update={"start_order": given})
    networks = small.networks(bundle)
    encode = networks["vae_encoder"]
    networks["vae_encoder"] = lambda inputs: seen.append(inputs["noise"][0].copy()) or encode(inputs)
    changed = SimpleNamespace(manifest=about, path=bundle.path, folder=bundle.folder)
    pipeline = Pipeline(changed, networks)
    for wishes, skips in (({}, skipped[0]), ({"mask": mask()}, skipped[1])):
        pipeline.generate("a", image=image(), strength=1.0, seed=7, **wishes)
        stream = np.random.Generator(np.random.Philox(key=7))
        drawn = [stream.standard_normal((4, 4, 4), np.float32) for _ in range(skips + 1)]
        np.testing.assert_array_equal(seen.pop(), drawn[-1])


def test_a_masked_picture_keeps_every_pixel_outside(with_encoder):
    given, hole = image(64, 32), mask(64, 32)
    for strength in (0.5, 1.0):
        (made,) = with_encoder.generate("a red square", image=given, mask=hole, strength=strength)
        kept = np.asarray(hole) == 0
        np.testing.assert_array_equal(array(made)[kept], array(given)[kept])
        assert (array(made)[~kept] != array(given)[~kept]).any()
    assert made.info["mask_sha256"]
    assert made.info["strength"] == "1.0"


def test_a_masked_latent_keeps_its_cells(with_encoder):
    """Through the model too: what it sees outside of the mask is the image under noise."""
    given, hole, seen, first = image(), mask(white=(slice(0, 16), slice(0, 32))), [], []
    with_encoder.generate("a", image=given, mask=hole, strength=0.5, on_step=seen.append, seed=5)
    with_encoder.generate("the sea", image=given, mask=hole, strength=0.5, on_step=first.append, seed=5)
    np.testing.assert_array_equal(seen[0].latent[:, :, 2:], first[0].latent[:, :, 2:])
    whole = []
    with_encoder.generate("a", image=given, mask=hole, on_step=whole.append, seed=5)
    assert [step.total for step in (seen[0], whole[0])] == [1, 2]
    # At full strength it begins with noise alone, as diffusers' inpainting does.
    draw = with_encoder.seeded(5, 1, 32, 32)
    draw()
    np.testing.assert_allclose(whole[0].latent, draw(), rtol=1e-6)


def test_default_strengths_are_those_of_diffusers(with_encoder):
    assert with_encoder.generate("a", image=image())[0].info["strength"] == "0.8"
    assert with_encoder.generate("a", image=image(), mask=mask())[0].info["strength"] == "1.0"


def test_the_size_is_that_of_the_image_unless_given(with_encoder):
    assert with_encoder.generate("a", image=image(48, 16))[0].size == (48, 16)
    (made,) = with_encoder.generate("a", image=image(50, 70), mask=mask(50, 70), height=32, width=48)
    assert made.size == (48, 32)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"strength": 0.5}, "a strength says how an image changes, and there is no image"),
        ({"mask": mask()}, "a mask says how an image changes, and there is no image"),
        ({"image": image(), "strength": 0.0}, r"strength 0 is out of range. Give more than 0"),
        ({"image": image(), "strength": 1.01}, r"strength 1.01 is out of range"),
        ({"image": image(), "strength": float("nan")}, "strength nan is out of range"),
        ({"image": image(), "strength": 0.49}, r"strength 0.49 of 2 steps takes none. Give at least 0.5"),
        ({"image": image(), "mask": mask(32, 16, np.s_[:8])}, "the mask is 32x16 pixels and the image 32x32"),
        ({"image": image(), "mask": mask(white=np.s_[:0])}, "the mask is black"),
        ({"image": image(), "mask": mask(white=np.s_[1:8, 1:8])}, "cells of 8x8 pixels.*Make it larger"),
        ({"image": image(40, 32)}, r"40x32 pixels \(width x height\) does not fit. width 40: .*16 to 64 in steps of 16.*resize"),
        ({"image": image(80, 32)}, "does not fit. width 80"),
        ({"image": image(), "height": 100_000}, "does not fit. height 100000"),
        ({"image": image(), "height": 0}, "does not fit. height 0"),
        ({"image": image(), "steps": 3}, "no sampler of 3 steps"),
    ],
)
def test_what_cannot_be_says_what_can(with_encoder, wishes, message):
    with pytest.raises(UnsupportedError, match=message):
        with_encoder.generate("a", **wishes)


def test_the_smallest_strength_that_is_named_works():
    given = image()
    for steps in (1, 2, 3, 7, 25, 49, 50, 93, 1000):
        with pytest.raises(UnsupportedError, match="takes none") as caught:
            InitImage.of(given, strength=0.5 / steps).start(steps)
        least = float(str(caught.value).partition("at least ")[2].partition(",")[0])
        assert InitImage.of(given, strength=least).start(steps) == steps - 1
        assert InitImage.of(given, strength=1.0).start(steps) == 0


@pytest.mark.parametrize(
    ("steps", "strength", "dropped", "taken"), [(10, 0.55, 5, 4), (4, 0.6, 2, 1), (2, 0.1, 2, 1), (5, 1.0, 0, 0)]
)
def test_a_step_in_which_a_strength_ends_is_dropped_or_taken(steps, strength, dropped, taken):
    """As Stable Diffusion's pipelines count, and as FLUX.1's do."""
    assert InitImage.left_out(steps, strength, "dropped") == dropped
    assert InitImage.left_out(steps, strength, "taken") == taken
    if taken < dropped == steps:
        given = InitImage.of(image(), strength=strength)
        assert given.start(steps, "taken") == taken
        with pytest.raises(UnsupportedError, match="takes none"):
            given.start(steps)


def test_a_bundle_without_an_encoder(pipeline, tmp_path):
    with pytest.raises(UnsupportedError, match=r"no VAE encoder.*`vae_encoder: \{\}`"):
        pipeline.generate("a", image=image())
    content = small.draft(encoder=True)
    entries = tuple(entry.model_copy(update={"image": None}) for entry in content.samplers)
    bundle = small.make(tmp_path / "b", encoder=True, samplers=entries)
    with pytest.raises(UnsupportedError, match="built without tables that start from an image"):
        Pipeline(bundle, small.networks(bundle)).generate("a", image=image())


def test_a_broken_encoder_or_denoiser_is_named(with_encoder):
    networks = small.networks(with_encoder.bundle)
    broken = lambda _: {"latent": np.full((1, 4, 4, 4), np.nan, np.float32)}  # noqa: E731
    with pytest.raises(UnsupportedError, match="the encoder returned NaN"):
        Pipeline(with_encoder.bundle, {**networks, "vae_encoder": broken}).generate("a", image=image())
    sick = lambda inputs: {"model_output": inputs["latent"] * np.float32(np.inf)}  # noqa: E731
    for extra in ({}, {"mask": mask()}):
        with pytest.raises(UnsupportedError, match=r"step 1 of . .*the denoiser returned NaN"):
            Pipeline(with_encoder.bundle, {**networks, "unet": sick}).generate("a", image=image(), **extra)


def test_every_pixel_value_survives():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    kept = InitImage.of(Image.fromarray(pixels, "RGB"), mask(16, 16, np.s_[:1, :1]))
    images = kept.keep(np.zeros((1, 16, 16, 3), np.float32))
    back = (images.clip(0, 1) * 255).round().astype(np.uint8)[0]
    np.testing.assert_array_equal(back.reshape(-1, 3)[1:], pixels.reshape(-1, 3)[1:])


def test_the_mask_is_white_from_the_middle_grey_on():
    greys = Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8), "L")
    assert InitImage.of(image(4, 1), greys).anew.tolist() == [[False, False, True, True]]


def test_digests_are_those_of_the_pixels(tmp_path):
    given = image()
    given.save(tmp_path / "a.png")
    given.save(tmp_path / "a.tiff")
    digests = [InitImage.of(init_image.read(tmp_path / name)).facts()["image_sha256"] for name in ("a.png", "a.tiff")]
    assert digests[0] == digests[1] == InitImage.of(given).facts()["image_sha256"]
    assert InitImage.of(image(seed=2)).facts()["image_sha256"] != digests[0]
    assert init_image.digest(np.zeros((2, 3), np.uint8)) != init_image.digest(np.zeros((3, 2), np.uint8))


def test_a_picture_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held on its side
    image(20, 10).save(tmp_path / "a.jpg", exif=exif)
    assert init_image.read(tmp_path / "a.jpg").size == (10, 20)


def bomb():
    """A PNG of a few bytes that says that it is 20000 pixels wide and high."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + end


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no picture", "cannot be read as a picture"), (b"", "cannot be read"), (bomb(), r"too large|exceeds limit")],
)
def test_a_file_that_is_no_picture(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnsupportedError, match=rf"a\.png.*{message}"):
        init_image.read(tmp_path / "a.png")


def test_a_picture_that_was_cut_off(tmp_path):
    image().save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsupportedError, match=r"a\.png cannot be read as a picture"):
        init_image.read(tmp_path / "a.png")
