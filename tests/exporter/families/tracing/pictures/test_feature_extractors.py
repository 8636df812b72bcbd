"""Image processors of transformers: what they do is data by which the run time does the same."""

import numpy as np
import pytest
import transformers
from PIL import Image

from engines.errors import UnsupportedError
from engines.images.preprocess import fed
from engines.inputs import Input
from exporter.families.tracing.pictures import feature_extractors
from tools.coverage import prompted

CLIP = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
#: What a processor is told → in which other way it works.
WAYS = {
    "clip": CLIP,
    "as once published": {"size": 224, "crop_size": 224, "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3},
    "lanczos": {**CLIP, "resample": 1},
    "square": {"size": {"height": 40, "width": 56}, "do_center_crop": False},
    "raw": {**CLIP, "do_normalize": False},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(224, 224), (300, 200), (101, 333), (64, 48), (1024, 683)])
def test_the_run_time_prepares_a_picture_to_the_same_numbers(way, size):
    extractor = feature_extractors.load("CLIPImageProcessor", WAYS[way])
    levels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(levels)
    preprocessing, (height, width) = feature_extractors.prepares(extractor)
    entry = Input(kind="image", shape=("batch", height, width, 3), preprocessing=preprocessing)
    made = fed("image", entry, image, height, width)
    wanted = extractor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    assert made.shape == wanted.shape
    np.testing.assert_allclose(made, wanted, rtol=0, atol=2e-6)


def test_published_names_are_those_that_need_no_torchvision():
    for name in ("CLIPImageProcessor", "CLIPFeatureExtractor", "CLIPImageProcessorPil", "CLIPImageProcessorFast"):
        assert feature_extractors.kind(name) is transformers.CLIPImageProcessorPil
    assert feature_extractors.kind("CLIPTextModel") is None
    assert feature_extractors.kind("NoSuchImageProcessor") is None


def test_they_are_found_among_components():
    assert list(feature_extractors.of(prompted.image_variation())) == ["feature_extractor"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": {"shortest_edge": 256}}, "resizes a picture to other sides than it then cuts out"),
        ({"crop_size": {"height": 224, "width": 112}, "size": {"shortest_edge": 112}}, "cuts out what is not square"),
        ({"do_resize": False}, "makes pictures of no size that is known"),
        ({"do_center_crop": False}, "makes pictures of no size that is known"),
        ({"do_rescale": False}, "does not take colours from 0 to 1"),
        ({"rescale_factor": 1 / 127.5}, "does not take colours from 0 to 1"),
        ({"resample": 5}, "resizes them by"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_a_bundle_does_not_do_is_refused(changes, told):
    with pytest.raises(UnsupportedError, match=told):
        feature_extractors.prepares(feature_extractors.load("CLIPImageProcessor", CLIP | changes))
