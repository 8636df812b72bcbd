"""How near a network comes to what a processor multiplies: what is called, how often, and what is told."""

import numpy as np
import pytest

from engines.backends.onnxruntime import OnnxRuntime
from tools.measure.product_rate import PRODUCTS, Rated, rates


def test_everybody_takes_turns_and_the_first_rounds_do_not_count():
    log = []

    def engine(name):
        return lambda given: log.append((name, given["x"].shape))

    calls = [Rated(each.name, each.multiply_adds, each.signature, engine(each.name)) for each in PRODUCTS]
    found = rates(calls, 3)
    names = [each.name for each in PRODUCTS]
    assert [name for name, _ in log] == names * 5
    assert {shape for _, shape in log} == {each.shape for each in PRODUCTS}
    assert {name: len(each) for name, each in found.items()} == dict.fromkeys(names, 3)


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda each: each.name)
def test_a_product_is_the_multiply_adds_that_it_says(tmp_path, product):
    backend, path = OnnxRuntime(), product.write(tmp_path / "product.onnx")
    with backend.open(backend.build(path, product.signature, tmp_path), product.signature) as engine:
        (answer,) = engine({"x": np.ones(product.shape, np.float32)}).values()
    assert answer.shape == product.shape
    # Each number of the answer is a sum over one row of weights.
    row = np.prod(product.weight[1:]) if product.operator == "Conv" else product.weight[0]
    assert answer.size * row == product.multiply_adds
