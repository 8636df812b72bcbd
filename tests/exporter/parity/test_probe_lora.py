"""LoRAs that bundles are checked with: the same everywhere, and of a size that shows."""

import hashlib

import numpy as np

from exporter.parity.probe_lora import probes, scales
from tests.engines.lora.networks import LAYERS, LIMITS


def test_they_are_the_same_on_every_machine():
    first, second = probes(LAYERS, LIMITS)
    assert set(first) == {"blocks.0.to_q", "blocks.0.proj", "blocks.0.conv"} == set(second)
    a, b = first["blocks.0.conv"]
    assert (a.shape, b.shape, len(second["blocks.0.to_q"][0])) == ((3, 4, 3, 3), (3, 3), 5)
    told = hashlib.sha256(b"".join(array.tobytes() for pair in first.values() for array in pair)).hexdigest()
    assert told[:16] == "df3cbbcad0036e50"
    assert len(probes(LAYERS, LIMITS.model_copy(update={"slots": 1}))) == 1


def test_the_change_is_of_the_size_of_weights():
    a, b = probes(LAYERS, LIMITS)[0][LAYERS[0].name]
    assert 0.1 < np.std(b @ a) * np.sqrt(a.shape[1]) < 1.0


def test_items_differ_in_how_strongly_they_have_them():
    assert scales(4, 2) == [[1.0, -0.75, 0.0, 0.0], [0.5, 0.0, 0.0, 1.0]]
    assert scales(1, 1) == [[1.0]]
