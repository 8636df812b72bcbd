import pytest
from google.protobuf import text_format

from engines.errors import UnsupportedError
from engines.signature import Port
from engines.triton import config
from tests.engines import small
from tests.engines.triton.server import TYPES, schema


def parsed(text):
    return text_format.Parse(text, schema().ModelConfig())


def test_a_network_joins_batches_of_the_size_that_it_takes():
    made = parsed(config.of_part("a.b", small.draft().parts["vae_decoder"], "onnxruntime", "b.onnx"))
    assert (made.name, made.backend, made.max_batch_size) == ("a.b", "onnxruntime", 2)
    assert [(port.name, list(port.dims)) for port in (*made.input, *made.output)] == [
        ("latent", [4, -1, -1]),
        ("image", [-1, -1, 3]),
    ]


def test_every_wish_is_optional_and_of_a_type_that_triton_has():
    made = parsed(config.of_pipeline("a", 3))
    assert {port.name for port in made.input if port.optional} == set(config.WISHES)
    assert {kind for kind, _ in config.WISHES.values()} <= set(TYPES)
    assert made.instance_group[0].count == 3


def test_a_port_without_a_batch_is_refused():
    part = small.draft().parts["unet"]
    ports = tuple(
        Port(name=port.name, shape=(1, *port.shape[1:])) if port.name == "timestep" else port for port in part.signature.inputs
    )
    other = part.model_copy(update={"signature": part.signature.model_copy(update={"inputs": ports})})
    with pytest.raises(UnsupportedError, match="first axis of timestep is no batch"):
        config.of_part("a", other, "onnxruntime", "a.onnx")
