"""What users feed a bundle beside prompts, of what a survey found."""

from types import SimpleNamespace

import torch

from engines.inputs import Input
from exporter.families.tracing import inputs
from exporter.families.tracing.pictures import image_arguments


class Pipeline:
    def __init__(self):
        self.components = {"unet": torch.nn.Identity()}

    def __call__(self, prompt):
        """Draw."""


def survey(**changes):
    made = {
        "pipeline": Pipeline(),
        "earlier": (),
        "owned": (),
        "prepared": {},
        "pictures": {"image": "image", "depth": "depth_map"},
        "name": "P",
        "seen": [],
        "views": {},
    }
    return SimpleNamespace(**{**made, **changes})


def test_pictures_are_as_large_as_what_is_drawn_unless_they_have_a_size_of_their_own():
    own = image_arguments.Picture(grey=False, preprocessing=image_arguments.PLAIN.preprocessing, sides=(224, 224))
    found = inputs.entries(survey(prepared={"image": own, "depth": image_arguments.MAP}), ["image", "depth"], ("8*h", "8*w"))
    assert {name: (each.kind, each.shape) for name, each in found.items()} == {
        "image": ("image", ("batch", 224, 224, 3)),
        "depth": ("image", ("batch", "8*h", "8*w", 1)),
    }
    assert found["depth"].about == "depth_map of P"


def test_the_noise_of_an_earlier_stage_comes_first():
    found = inputs.entries(survey(earlier=(2, 8)), ["image"], ("h", "w"))
    assert [(name, each.kind) for name, each in found.items()] == [("prior_noise", "noise"), ("image", "image")]
    assert found["prior_noise"].shape == ("batch", 2, 8)


def test_noise_for_pictures_is_drawn_behind_an_earlier_stage_s():
    found = inputs.entries(survey(earlier=(2, 8), owned=(1, 4)), ["image"], ("h", "w"))
    assert [(name, each.kind) for name, each in found.items()][:2] == [("prior_noise", "noise"), ("image_noise", "noise")]
    assert found["image_noise"].shape == ("batch", 1, 4)


def test_a_part_is_fed_what_is_of_its_side():
    entries = inputs.entries(survey(earlier=(2, 8), owned=(1, 4)), ["image"], ("h", "w"))
    entries["level"] = Input(kind="integer", shape=("batch",), default=0)
    entries["label"] = Input(kind="integer", shape=("batch",))
    named = {
        role: [port.name for port in inputs.ports(entries, role, ("image", "image_noise", "level"))]
        for role in ("text", "condition", "denoiser")
    }
    assert named == {"text": ["prior_noise"], "condition": ["image_noise", "image", "level"], "denoiser": ["label"]}


def test_a_picture_that_the_text_encoder_sees_is_fed_to_it_too():
    entries = inputs.entries(survey(seen=["depth"]), ["image"], ("h", "w"))
    assert list(entries) == ["image", "depth"]
    text = [port.name for port in inputs.ports(entries, "text", ("image",), ["image", "depth"])]
    assert text == ["image", "depth"]
    assert [port.name for port in inputs.ports(entries, "condition", ("image",), ["image", "depth"])] == ["image"]


def test_a_picture_that_the_text_encoder_sees_in_another_size_has_a_port_of_its_own_there():
    small = image_arguments.Picture(grey=False, preprocessing=image_arguments.PLAIN.preprocessing, sides=(384, 384))
    entries = inputs.entries(survey(seen=["image"], views={"image": {"image_seen": small}}), ["image"], ("h", "w"))
    assert list(entries) == ["image"]  # of which a user gives one
    ports = {role: inputs.ports(entries, role, ("image",), ["image_seen"]) for role in ("text", "condition")}
    assert {role: [(each.name, each.shape) for each in own] for role, own in ports.items()} == {
        "text": [("image_seen", ("batch", 384, 384, 3))], "condition": [("image", ("batch", "h", "w", 3))]
    }  # fmt: skip
