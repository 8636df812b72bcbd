"""Pictures in a text: how often each stands there, what is read behind them, and what a text encoder is given."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from engines.errors import UnsupportedError
from engines.inputs import Preprocessing
from exporter.families.tracing.following.origins import marked
from exporter.families.tracing.pictures.image_arguments import Picture, Shown
from exporter.families.tracing.texts import seen_pictures
from tools.coverage.processors import qwen_image_edit

TEXT = "see <|vision_start|><|image_pad|><|vision_end|> make it red"


@pytest.fixture(scope="module")
def processor():
    return qwen_image_edit().processor


def picture(side=140):
    return Shown(marked(torch.zeros(1, 3, side, side), "image"))


def test_a_text_has_as_many_places_as_its_picture_has_tokens(processor):
    found = seen_pictures.seen(processor, picture(), TEXT)
    assert found.names == ("image",)
    assert found.written(TEXT) == TEXT.replace("<|image_pad|>", "<|image_pad|>" * 25)
    real = processor(text=[TEXT], images=[Image.new("RGB", (140, 140))], return_tensors="pt")
    written, given, _ = seen_pictures.read(processor, [TEXT], {"return_tensors": "pt"}, picture(), {}, cut=False)
    assert written == [found.written(TEXT)]
    assert torch.equal(given["input_ids"], real["input_ids"])
    assert torch.equal(given["image_grid_thw"], real["image_grid_thw"])
    assert given["pixel_values"].shape == real["pixel_values"].shape


def test_behind_the_pictures_so_much_is_read_as_the_pipeline_says(processor):
    options = {"return_tensors": "pt", "padding": True}
    _, whole, _ = seen_pictures.read(processor, [TEXT], options, picture(), {}, cut=False)
    _, given, _ = seen_pictures.read(processor, [TEXT], options, picture(), {"max_sequence_length": 5}, cut=False)
    places = (whole["input_ids"][0] == processor.image_token_id).nonzero()
    assert given["input_ids"].shape == given["attention_mask"].shape == (1, int(places.max()) + 6)


def test_without_pictures_a_processor_reads_as_it_is_asked(processor):
    texts, given, seen = seen_pictures.read(processor, ["a fox"], {"return_tensors": "pt"}, None, {}, cut=False)
    assert (list(texts), seen) == (["a fox"], None)
    assert torch.equal(given["input_ids"], processor.tokenizer(["a fox"], return_tensors="pt")["input_ids"])


def test_what_a_bundle_is_fed_becomes_the_processor_s_own_values(processor):
    colours = np.random.default_rng(2).integers(0, 256, (6, 6, 3), np.uint8)
    shown = Image.fromarray(colours).resize((160, 160))
    found = seen_pictures.seen(processor, picture(160), TEXT)
    fed = torch.from_numpy(np.asarray(shown, np.float32))[None] / 127.5 - 1
    (made,) = found.patched({"shown": fed}, {"image": ("shown", Preprocessing(mean=(0.5,), std=(0.5,)))})
    wanted = processor.image_processor([shown], return_tensors="pt")["pixel_values"]
    assert (made - wanted).abs().mean() < 1e-3
    assert torch.equal(found.beside({"input_ids": torch.zeros(1, 3)}, [made])["pixel_values"], made)


def test_what_is_no_picture_of_the_pipeline_s_is_refused(processor):
    for other in (torch.zeros(1, 3, 140, 140), [picture(), object()]):
        with pytest.raises(UnsupportedError, match="sees something else than one of the pipeline's pictures"):
            seen_pictures.seen(processor, other, TEXT)


def test_what_transformers_compares_is_taken_for_granted_for_a_while(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_DISABLE_TORCH_CHECK", "0")
    with seen_pictures.unchecked():
        assert os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] == "1"
    assert os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] == "0"


def test_a_picture_that_is_started_from_and_seen_is_refused():
    class Starting:
        def __call__(self, _image, strength=0.6):
            raise AssertionError(strength)

    class Conditioned:
        def __call__(self, _image):
            raise AssertionError

    seen_pictures.refuse_start(Conditioned())
    with pytest.raises(UnsupportedError, match="Starting starts from the picture that its text encoder sees"):
        seen_pictures.refuse_start(Starting())


def sighted(processor, picture, sides):
    """A survey whose text encoder sees a picture that is drawn in those sides."""
    read = SimpleNamespace(tokens=[SimpleNamespace(seen=seen_pictures.seen(processor, picture, TEXT))])
    own = Picture(grey=False, preprocessing=Preprocessing(), sides=sides)
    return SimpleNamespace(
        name="EditPipeline", encodings=[read, read], prepared={"image": own}, pictures={"image": "image"}, size=(140, 140),
        seen=["image"],
    )  # fmt: skip


def test_a_picture_that_is_seen_in_another_size_than_it_is_drawn_in_is_a_view(processor):
    small = Shown(marked(torch.zeros(1, 3, 140, 168), "image"), "bicubic")
    survey = sighted(processor, small, (280, 336))
    survey.views = seen_pictures.views(survey)
    prepared = Preprocessing(resize="stretch", resample="bicubic")
    assert survey.views == {"image": {"image_seen": Picture(grey=False, preprocessing=prepared, sides=(140, 168))}}
    assert seen_pictures.ports(survey) == {"image": ("image_seen", prepared)}


def test_a_picture_that_is_seen_as_it_is_drawn_has_no_view(processor):
    for sides in ((140, 140), None):
        survey = sighted(processor, picture(), sides)
        survey.views = seen_pictures.views(survey)
        assert survey.views == {}
        assert seen_pictures.ports(survey)["image"][0] == "image"


def test_a_picture_that_is_seen_as_it_comes_and_drawn_in_another_size_is_refused(processor):
    with pytest.raises(UnsupportedError, match="EditPipeline shows its image to its text encoder as it comes"):
        seen_pictures.views(sighted(processor, picture(), (280, 280)))


def test_what_stands_for_pictures_and_videos_is_no_word_of_a_prompt(processor):
    found = seen_pictures.seen(processor, picture(), TEXT)
    assert found.reserved[0] == "<|image_pad|>"
    assert "<|video_pad|>" in found.reserved
