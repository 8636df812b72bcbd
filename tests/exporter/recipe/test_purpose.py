"""What a model was made for is a value: equal by content, hashable, and by default any sampler's."""

import dataclasses

import pytest

from exporter.recipe.purpose import ModelPurpose


def test_a_model_suits_any_sampler_unless_something_says_otherwise():
    purpose = ModelPurpose()
    assert not purpose.kind
    assert not purpose.prediction
    assert (purpose.steps, purpose.starts) == (None, None)


def test_it_is_a_value():
    few = ModelPurpose("lcm", "its name", 4, "sample", (1000, (999, 499)))
    assert few == dataclasses.replace(few)
    assert len({few, dataclasses.replace(few), dataclasses.replace(few, steps=8)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        few.steps = 2
