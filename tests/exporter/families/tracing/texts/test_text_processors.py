"""Who reads texts in a pipeline, and stands in the place of that while its code is followed."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from engines.errors import UnsupportedError
from exporter.families.tracing.texts import text_processors
from exporter.families.tracing.texts.text_processors import TextProcessor
from tools.coverage.parts import CHAT, spelling_tokenizer
from tools.coverage.processors import processor, qwen_image_edit


@pytest.fixture
def read():
    return processor("Qwen3VLProcessor", CHAT)


def test_a_processor_is_read_without_the_libraries_of_its_pictures(read, tmp_path):
    read.save_pretrained(tmp_path)
    found = TextProcessor.of(tmp_path)
    assert text_processors.is_processor("Qwen3VLProcessor")
    assert not text_processors.is_processor("Qwen2Tokenizer")
    messages = [{"role": "user", "content": "a fox"}]
    assert found.apply_chat_template(messages) == read.apply_chat_template(messages) == "<|im_start|>user\na fox<|im_end|>\n"
    assert found(text=["a fox"])["input_ids"] == found(text="a fox")["input_ids"] == read.tokenizer(["a fox"])["input_ids"]


def test_a_chat_s_template_may_be_the_tokenizer_s(tmp_path):
    spelling_tokenizer("Qwen2Tokenizer", CHAT).save_pretrained(tmp_path)
    assert TextProcessor.of(tmp_path).chat_template == CHAT


def test_tokenizers_and_processors_of_texts_read(read):
    tokenizer, pictures = spelling_tokenizer("Qwen2Tokenizer"), SimpleNamespace(size=3)
    pipeline = SimpleNamespace(components={"tokenizer": tokenizer, "processor": read, "feature_extractor": pictures, "vae": None})
    assert list(text_processors.of(pipeline)) == ["tokenizer", "processor"]
    assert text_processors.tokenizer(read) is read.tokenizer
    assert text_processors.tokenizer(tokenizer) is tokenizer


def test_calls_are_answered_whichever_way_they_come(read):
    asked = []
    stand_in = text_processors.answering(read, lambda texts, options: asked.append((texts, options)) or {"input_ids": 7})
    assert stand_in(text="a fox", padding=True) == {"input_ids": 7}
    assert stand_in.tokenizer(["an owl"], return_tensors="pt") == {"input_ids": 7}
    chat = [[{"role": "user", "content": [{"type": "text", "text": "a hen"}]}]]
    found = stand_in.apply_chat_template(
        chat, chat_template="{{ messages[0]['role'] }}", tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert found == {"input_ids": 7}
    assert [texts for texts, _ in asked] == [["a fox"], ["an owl"], ["user"]]
    assert asked[0][1] == {"padding": True}


def test_pictures_need_what_prepares_them(read):
    stand_in = text_processors.answering(read, lambda *_: {})
    with pytest.raises(
        UnsupportedError, match=r"nothing is there that prepares them(?s:.)*Qwen3VLProcessor needs a preprocessor_"
    ):
        stand_in(images=[object()], text=["a fox"])
    with pytest.raises(UnsupportedError, match="is given more than texts and pictures"):
        stand_in(videos=[object()], text=["a fox"])


@pytest.mark.parametrize("former", [False, True], ids=["today", "before transformers 5"])
def test_a_processor_whose_folder_says_how_it_prepares_pictures_reads_these_too(tmp_path, former):
    made, shown = qwen_image_edit().processor, Image.new("RGB", (140, 140))
    (made.tokenizer if former else made).save_pretrained(tmp_path)
    if former:
        made.image_processor.save_pretrained(tmp_path)
    found = text_processors.load("Qwen2VLProcessor", tmp_path)
    text = ["see <|image_pad|>"]
    both = [one(text=text, images=[shown], return_tensors="pt") for one in (found, made)]
    assert torch.equal(both[0]["input_ids"], both[1]["input_ids"])
    assert torch.equal(both[0]["pixel_values"], both[1]["pixel_values"])
    asked = []
    text_processors.answering(found, lambda *given: asked.append(given))(text="see", images=shown)
    assert asked == [(["see"], {}, shown)]


def test_a_processor_without_that_reads_texts_alone(read, tmp_path):
    read.save_pretrained(tmp_path)
    assert type(text_processors.load("Qwen3VLProcessor", tmp_path)) is TextProcessor


def test_a_pipeline_s_side_of_the_padding_is_the_tokenizer_s():
    real = spelling_tokenizer("GemmaTokenizer")
    real.padding_side = "left"
    asked = []
    stand_in = text_processors.answering(real, lambda texts, options: asked.append(real(texts, **options)["attention_mask"][0]))
    stand_in("a", padding="max_length", max_length=3)
    stand_in.padding_side = "right"
    stand_in("a", padding="max_length", max_length=3)
    assert [mask[0] for mask in asked] == [0, 1]


def test_a_text_is_not_filled_up_to_a_multiple(read):
    options = {"padding": "longest", "pad_to_multiple_of": 8, "return_tensors": "pt"}
    assert torch.equal(text_processors.tokenized(read, ["a fox"], options)["attention_mask"], torch.ones(1, 5, dtype=torch.long))
    fixed = {"padding": "max_length", "max_length": 9, "pad_to_multiple_of": 8, "return_tensors": "pt"}
    assert text_processors.tokenized(read, ["a fox"], fixed)["input_ids"].shape == (1, 16)
    read.tokenizer.padding_side = "left"
    with pytest.raises(UnsupportedError, match="fills texts up to a multiple on their left"):
        text_processors.tokenized(read, ["a fox"], options)
