"""A picture says how it was made, and is made again from that, or the reason why not is a sentence."""

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from engines.errors import UnsupportedError
from engines.images.png import save
from engines.images.provenance import ImageProvenance
from engines.pipeline import Pipeline
from tests.engines import small
from tests.engines.images.test_init_image import image, mask


def saved(pictures, folder):
    return [ImageProvenance.read(path) for path in save(pictures, folder / "p.png")]


def again(pipeline, made, **more):
    (picture,) = pipeline.generate(**made.wishes(pipeline.bundle.manifest) | more)
    return np.asarray(picture)


def test_every_wish_comes_back_to_the_last_bit(with_encoder, tmp_path):
    scale = 1 / 3
    wishes = {"negative_prompt": "sea — 木", "seed": 2**63, "height": 64, "width": 32, "steps": 4, "guidance_scale": scale}
    (first,) = with_encoder.generate("a red square", **wishes)
    (made,) = saved([first], tmp_path)
    absent = {"strength": None, "sampler": None, "generator": "numpy", "inputs": {}}
    assert made.wishes(with_encoder.bundle.manifest) == {**wishes, **absent, "prompts": ("a red square",)}
    assert made.guidance_scale == scale
    assert made.engine == "toy 1"
    np.testing.assert_array_equal(again(with_encoder, made), np.asarray(first))


def test_a_picture_of_a_batch_is_made_again_alone(pipeline, tmp_path):
    pictures = pipeline.generate(["a", "red"], seed=5)
    for picture, made in zip(pictures, saved(pictures, tmp_path), strict=True):
        np.testing.assert_array_equal(again(pipeline, made), np.asarray(picture))
        assert "alone it may differ" in made.doubts("")[0]
    assert made.batch == "2 of 2"


def test_an_image_and_a_mask_are_given_again(with_encoder, tmp_path):
    given, hole = image(), mask()
    (first,) = with_encoder.generate("a red square", image=given, mask=hole, strength=0.7, seed=1)
    (made,) = saved([first], tmp_path)
    right, manifest = with_encoder.original(given, hole, 0.7), with_encoder.bundle.manifest
    made.compare(right)
    np.testing.assert_array_equal(again(with_encoder, made, image=given, mask=hole), np.asarray(first))
    assert made.wishes(manifest)["strength"] == 0.7
    other = mask(white=np.s_[:8])
    for wrong, message in (
        (None, "was made from an image. Give the same again"),
        (with_encoder.original(image(seed=9), hole), "this image is not the one"),
        (with_encoder.original(given), "was made from an image and a mask. Give the same again"),
        (with_encoder.original(given, other), "this mask is not the one"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            made.compare(wrong)
    (plain,) = saved(with_encoder.generate("a"), tmp_path)
    plain.compare(None)
    with pytest.raises(UnsupportedError, match=r"made without image\. Leave it out"):
        plain.compare(right)


def test_given_noise_is_given_again(pipeline, tmp_path):
    noise = np.random.default_rng(0).standard_normal((3, 2, 4, 4, 4), np.float32)  # more draws than the sampler makes
    pictures = pipeline.generate(["a", "red"], noise=noise)
    for picture, made in zip(pictures, saved(pictures, tmp_path), strict=True):
        np.testing.assert_array_equal(again(pipeline, made, noise=made.own_noise(noise)), np.asarray(picture))
        with pytest.raises(UnsupportedError, match=r"from noise that was given\. Give the same again"):
            made.own_noise(None)
        with pytest.raises(UnsupportedError, match="not what the picture was made from"):
            made.own_noise(noise[::-1])
    (seeded,) = saved(pipeline.generate("a"), tmp_path)
    assert seeded.own_noise(None) is None
    with pytest.raises(UnsupportedError, match=r"made from a seed\. Leave the noise out"):
        seeded.own_noise(noise)


def test_another_bundle_is_refused_and_a_check_is_no_other(pipeline, with_encoder, tmp_path):
    (made,) = saved(pipeline.generate("a"), tmp_path)
    with pytest.raises(UnsupportedError, match=r"made by another bundle \(digest .*this one, small,.*Name the bundle"):
        made.wishes(with_encoder.bundle.manifest)
    checked = small.make(tmp_path / "checked", notes=("looked at again",), versions={"t2iexport": "9"})
    assert checked.manifest.digest != pipeline.bundle.manifest.digest
    assert made.wishes(checked.manifest)["prompts"] == ("a",)
    changed = small.make(tmp_path / "changed", graphs={"unet": b"other weights"})
    with pytest.raises(UnsupportedError, match="another bundle"):
        made.wishes(changed.manifest)


def test_another_engine_is_told(pipeline, with_encoder, tmp_path):
    (made,) = saved(with_encoder.generate("a"), tmp_path)
    assert made.doubts("toy 1") == []
    assert made.doubts("toy 2") == ["made by toy 1, and this is toy 2; the last bits may differ"]
    (unnamed,) = saved(pipeline.generate("a"), tmp_path)
    assert unnamed.doubts("") == []
    assert Pipeline(with_encoder.bundle, small.networks(with_encoder.bundle), "toy 3").engine == "toy 3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({}, "does not say how it was made"),
        ({"prompt": "a", "Software": "another program"}, "does not say how it was made"),
        ({"digest": "0" * 64}, "damaged way how it was made:\n  prompt: Field required"),
        ({"digest": "0", "prompt": "a", "steps": "many", "height": "1", "width": "-1"}, r"\n  steps: .*\n  width: "),
    ],
)
def test_a_picture_that_does_not_tell(tmp_path, text, message):
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_itxt(key, value)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(UnsupportedError, match=rf"a\.png(.|\n)*{message}"):
        ImageProvenance.read(tmp_path / "a.png")


def test_a_file_that_is_no_picture_or_tells_too_much(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(UnsupportedError, match=r"a\.png cannot be read"):
        ImageProvenance.read(tmp_path / "a.png")
    info = PngImagePlugin.PngInfo()
    info.add_itxt("digest", "0" * 2**21, zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png", pnginfo=info)
    with pytest.raises(UnsupportedError, match=r"b\.png cannot be read"):
        ImageProvenance.read(tmp_path / "b.png")
