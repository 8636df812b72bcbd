"""What a bundle leaves out is said in a sentence each."""

from types import SimpleNamespace
from typing import Any

import torch

from engines.errors import UnsupportedError
from exporter.families.tracing.following.own_texts import Zeros
from exporter.families.tracing.left_out import abilities, components


def survey(**facts: Any) -> Any:
    plain = {"name": "APipeline", "unseeded": 0, "rewrites": False, "readings": {}, "unguided": {}, "rewriting": {}, "cut_at": {}}
    plain |= {"conditioning": [], "fills": False}
    return SimpleNamespace(**{**plain, **facts})


def test_components_that_no_part_uses_are_named():
    index = {"_class_name": "APipeline", "unet": ["diffusers", "A"], "checker": ["diffusers", "B"], "none": [None, None]}
    assert list(components(survey(), index, {"unet"})) == [
        "left out: checker, which APipeline does not run for a picture from text"
    ]


def test_a_component_that_writes_prompts_anew_is_said_once():
    index = {"unet": ["diffusers", "A"], "pe": ["transformers", "B"], "pe_tokenizer": ["transformers", "C"]}
    assert list(components(survey(rewriting={"use_pe": ["pe", "pe_tokenizer"]}), index, {"unet"})) == []


def test_each_ability_that_is_left_out_has_its_sentence():
    assert list(abilities(survey())) == []
    readings = {"tokenizer": SimpleNamespace(pads=1, most=8)}
    new = {"rewriting": {"use_pe": ["pe"]}, "cut_at": {"tokenizer": 9}}
    told = survey(**new, unseeded=1, fills=True, rewrites=True, readings=readings, unguided=UnsupportedError("its code\n  fails"))
    anew, end, noise, strengths, texts, ids, guidance = abilities(told)
    assert "strengths below 1 of APipeline" in strengths
    assert "use_pe of APipeline" in anew
    assert "a bundle draws the prompt that it is given" in anew
    assert "first 9 ids" in end
    assert "noise that no seed reaches" in noise
    assert "mends in prompts by code" in texts
    assert "more than 8 ids" in ids
    assert guidance == "guidance is never off: without it its code fails"


def test_what_is_read_of_some_texts_alone_is_told():
    (told,) = abilities(survey(conditioning=[["a constant", Zeros((4,), torch.float32)]]))
    assert told.startswith("left out: what APipeline reads of some texts alone, such as words within quotes")
