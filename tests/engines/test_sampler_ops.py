"""What every player checks of the ops that it plays."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from engines.errors import UnsupportedError
from engines.sampler_ops import (
    Draw,
    Emit,
    Eval,
    GivenLatent,
    Ops,
    Scaled,
    append,
    fitting,
    no_rows_for_a_mask,
    norms,
    not_finite,
    step_name,
)

SHAPE = (1, 4, 2, 3)


def test_an_op_is_told_by_its_word():
    ops = TypeAdapter(Ops).validate_python(
        [{"op": "draw"}, {"op": "given", "name": "image"}, {"op": "eval", "t": 1, "row": [1]}, {"op": "emit", "row": []}]
    )
    assert [type(op) for op in ops] == [Draw, GivenLatent, Eval, Emit]
    scaled = {"op": "scaled", "row": [1], "over": [1], "under": [1], "power": 2}
    assert TypeAdapter(Ops).validate_python([scaled]) == (Scaled(row=(1,), over=(1,), under=(1,), power=2),)
    for wrong in (
        {"op": "noise"},
        scaled | {"power": 3},
        {"row": [1]},
        {"op": "draw", "row": [1]},
        {"op": "eval", "t": float("nan"), "row": []},
    ):
        with pytest.raises(ValidationError):
            TypeAdapter(Ops).validate_python([wrong])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_latent_becomes_a_float32_copy(dtype):
    array = np.full(SHAPE, 0.5, dtype)
    kept = fitting(array, [], "draw")
    assert kept.dtype == np.float32
    array[...] = 7
    np.testing.assert_array_equal(kept, np.full(SHAPE, 0.5, np.float32))


def test_another_shape_than_the_first_latent_s_is_named():
    history = [np.zeros(SHAPE, np.float32)]
    assert fitting(np.ones(SHAPE), history, "x").shape == SHAPE
    told = r"the denoiser returned shape \[1, 4, 3, 2\]; the latent has \[1, 4, 2, 3\]"
    with pytest.raises(UnsupportedError, match=told):
        fitting(np.ones((1, 4, 3, 2)), history, "the denoiser")


def test_a_draw_asks_and_a_given_is_looked_up():
    noise, image = np.ones(SHAPE, np.float32), np.full(SHAPE, 2, np.float32)

    def never():
        raise AssertionError

    np.testing.assert_array_equal(append(Draw(), [], lambda: noise, None), noise)
    np.testing.assert_array_equal(append(GivenLatent(name="image"), [noise], never, {"image": image}), image)
    for given in (None, {}, {"other": image}):
        with pytest.raises(UnsupportedError, match=r"starts from a given latent named 'image'. Give it"):
            append(GivenLatent(name="image"), [noise], never, given)
    for op, where in ((Draw(), "draw"), (GivenLatent(name="image"), "the given image")):
        with pytest.raises(UnsupportedError, match=f"{where} returned shape"):
            append(op, [noise], lambda: image[..., :1], {"image": image[..., :1]})


def test_what_is_said_of_a_step():
    assert step_name(2, 4, 599.0) == "step 2 of 4 (t = 599): the denoiser"
    assert str(not_finite(step_name(1, 1, 0.5))).startswith("step 1 of 1 (t = 0.5): the denoiser returned NaN or infinity.")
    assert "Play it without a mask" in str(no_rows_for_a_mask())
    assert isinstance(no_rows_for_a_mask(), UnsupportedError)


def test_a_norm_is_a_picture_s():
    latent = np.zeros((2, 4, 2, 3), np.float32)
    latent[0, 0, 0, :2] = 3, 4
    assert norms(latent).tolist() == [[[[5.0]]], [[[0.0]]]]
    assert norms(latent).dtype == np.float64
