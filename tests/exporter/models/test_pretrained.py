"""A network of transformers, opened: whole, or refused."""

import pytest
from safetensors.torch import load_file, save_file

from engines.errors import UnsupportedError
from exporter.models import pretrained
from tests.exporter import models


def test_a_network_that_lacks_weights_is_refused(tmp_path):
    models.save_classifier(tmp_path)
    network, device = pretrained.opened("AutoModelForImageClassification", tmp_path)
    assert not network.training
    assert next(network.parameters()).device.type == device
    weights = load_file(tmp_path / "model.safetensors")
    lost = min(weights)
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedError, match=r"lacks 1 weights of its network, "):
        pretrained.opened("AutoModelForImageClassification", tmp_path)
