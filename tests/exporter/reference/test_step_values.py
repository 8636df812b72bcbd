import numpy as np

from tests.exporter.parity import planted


def test_a_step_is_named_as_the_graph_names_it_and_knows_its_module():
    _, (case, _) = planted.part()
    steps = planted.steps("fp32")
    assert steps.modules["conv2d"] == "conv_in"
    assert steps.modules["softmax"] == "attention.softmax"
    seen = steps(case.inputs, ["softmax", "model_output"])
    assert sorted(seen) == ["model_output", "softmax"]
    np.testing.assert_allclose(seen["softmax"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(seen["model_output"], case.passes["model_output"])
