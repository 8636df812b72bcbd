"""What pieces add to a weight, in numbers small enough to be worked out on paper."""

import pytest
import torch

from exporter.models.lora_changes import UnfitError, bias, weight

#: A weight of two outputs and two inputs.
BEFORE = torch.tensor([[3.0, 0.0], [0.0, 4.0]])


def t(*rows):
    return torch.tensor(rows, dtype=torch.float32)


DOWN, UP = t([1, 2]), t([1], [10])  # rank 1: [[1, 2], [10, 20]]
TWO = {"down": t([1, 0], [0, 1]), "up": t([1, 2], [3, 4])}  # rank 2: [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("pieces", "change"),
    [
        ({"down": DOWN, "up": UP}, [[1, 2], [10, 20]]),
        ({"down": DOWN, "up": UP, "alpha": torch.tensor(0.5)}, [[0.5, 1], [5, 10]]),
        ({**TWO, "alpha": torch.tensor(1.0)}, [[0.5, 1], [1.5, 2]]),  # over rank 2
        ({"diff": t([1, 2], [3, 4]), "alpha": torch.tensor(9.0)}, [[1, 2], [3, 4]]),  # a whole difference has no rank
        ({"w_norm": t([1, 2], [3, 4])}, [[1, 2], [3, 4]]),
        ({"down": DOWN, "up": UP, "diff": t([1, 1], [1, 1])}, [[2, 3], [11, 21]]),  # several ways add up
        (
            {"hada_w1_a": UP, "hada_w1_b": DOWN, "hada_w2_a": t([2], [1]), "hada_w2_b": t([1, 1])},
            [[2, 4], [10, 20]],  # times [[2, 2], [1, 1]]
        ),
        (
            {"hada_w1_a": UP, "hada_w1_b": DOWN, "hada_w2_a": t([2], [1]), "hada_w2_b": t([1, 1]), "alpha": torch.tensor(2.0)},
            [[4, 8], [20, 40]],
        ),
        ({"lokr_w1": t([2], [3]), "lokr_w2": t([1, 5])}, [[2, 10], [3, 15]]),
        ({"lokr_w1": t([2], [3]), "lokr_w2": t([1, 5]), "alpha": torch.tensor(9.0)}, [[2, 10], [3, 15]]),  # whole: no rank
        (
            {"lokr_w1": t([2], [3]), "lokr_w2_a": t([1, 1]), "lokr_w2_b": t([1, 0], [0, 5]), "alpha": torch.tensor(1.0)},
            [[1, 5], [1.5, 7.5]],  # [1, 5] of rank 2
        ),
    ],
)
def test_a_linear_layer(pieces, change):
    found = weight(pieces, BEFORE)
    assert found.dtype == torch.float64
    assert found.tolist() == change


def test_a_strength_from_elsewhere_stands_in_for_alpha_alone():
    assert weight({"down": DOWN, "up": UP}, BEFORE, 3.0).tolist() == [[3, 6], [30, 60]]
    assert weight({"down": DOWN, "up": UP, "alpha": torch.tensor(2.0)}, BEFORE, 3.0).tolist() == [[2, 4], [20, 40]]
    assert weight({"diff": t([1, 2], [3, 4])}, BEFORE, 3.0).tolist() == [[1, 2], [3, 4]]


def test_a_convolution():
    before = torch.zeros(2, 1, 1, 2)
    found = weight({"down": torch.tensor([[[[1.0, 2.0]]]]), "up": UP[..., None, None]}, before)
    assert (found.shape, found.flatten().tolist()) == (before.shape, [1, 2, 10, 20])


def test_a_convolution_of_one_pixel_is_a_linear_layer():
    assert weight({"down": DOWN, "up": UP}, BEFORE[..., None, None]).shape == (2, 2, 1, 1)
    assert weight({"down": DOWN[..., None, None], "up": UP}, BEFORE).tolist() == [[1, 2], [10, 20]]


def test_a_middle_of_tucker():
    """One output, one input, kernels of two: out of rank 2 by a middle of 2 × 1 × 1 × 2 into rank 1."""
    pieces = {
        "up": torch.tensor([[[[1.0]], [[10.0]]]]),
        "mid": torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]]),
        "down": torch.tensor([[[[2.0]]]]),
    }
    found = weight(pieces, torch.zeros(1, 1, 1, 2))
    assert found.flatten().tolist() == [2 * (1 + 30), 2 * (2 + 40)]


def test_cores_of_tucker():
    """Of rank 2 both: factors (rank, outputs) and (rank, inputs) around a core of one pixel."""
    core = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[..., None, None]
    pieces = {"t": core, "w_a": t([1, 0], [0, 1]), "w_b": t([1, 10], [100, 1000])}
    # [[1, 2], [3, 4]] times w_b
    product = [[1 + 200, 10 + 2000], [3 + 400, 30 + 4000]]
    lokr = {"lokr_w1": t([1]), "lokr_t2": core, "lokr_w2_a": pieces["w_a"], "lokr_w2_b": pieces["w_b"]}
    assert weight(lokr, BEFORE).tolist() == product
    loha = {f"hada_{name[0]}{half}{name[1:]}": value for half in "12" for name, value in pieces.items()}
    assert weight(loha | {"alpha": torch.tensor(1.0)}, BEFORE).tolist() == [[x * x / 2 for x in row] for row in product]


def test_only_a_bias_changes_no_weight():
    assert weight({"diff_b": t(1.0, 2.0)}, BEFORE) is None
    assert bias({"diff_b": t(1.0, 2.0)}).tolist() == [1, 2]
    assert bias({"b_norm": t(3.0)}).tolist() == [3]
    assert bias({"diff": t([1, 2])}) is None
    assert bias({"diff_b": t(1.0)}).dtype == torch.float64


@pytest.mark.parametrize("name", ["magnitude", "dora_scale"])
def test_lengths_of_outputs_are_what_they_are_set_to(name):
    """3, 4 and 6, 8 have lengths 5 and 10; they become 10 and 5."""
    pieces = {"diff": t([0, 4], [6, 4]), name: t(10.0, 5.0) if name == "magnitude" else t([10], [5])}
    torch.testing.assert_close(weight(pieces, BEFORE), t([6 - 3, 8], [3, 4 - 4]).double())


def test_lengths_of_inputs_stand_in_a_row():
    """Columns 3, 4 and 0, 8 have lengths 5 and 8; they become 10 and 4."""
    pieces = {"diff": t([0, 0], [4, 4]), "dora_scale": t([10, 4])}
    torch.testing.assert_close(weight(pieces, BEFORE), t([6 - 3, 0], [8, 4 - 4]).double())


def test_lengths_alone_change_nothing_by_themselves():
    with pytest.raises(UnfitError, match="has dora_scale alone"):
        weight({"dora_scale": t([1], [1])}, BEFORE)


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ({"alpha": torch.tensor(1.0)}, "has alpha alone"),
        ({"down": DOWN}, "has no up"),
        ({"up": UP, "alpha": torch.tensor(1.0)}, "has no down"),
        ({"mid": t([1])}, "has no down and no up"),
        ({"down": t([1, 2, 3]), "up": UP}, "has A [1, 3] and B [2, 1], which do not make the model's weight [2, 2]"),
        ({"down": DOWN, "up": t([1], [2], [3])}, "has A [1, 2] and B [3, 1], which do not make the model's weight [2, 2]"),
        ({"down": DOWN, "up": t([1, 2])}, "has A [1, 2] and B [1, 2], which do not make the model's weight [2, 2]"),
        (
            {"down": DOWN, "up": UP, "mid": torch.zeros(3, 3, 1, 1)},
            "has A [1, 2], a middle [3, 3, 1, 1] and B [2, 1], which do not fit",
        ),
        (
            # One input is no rank of three: what is 1 would be stretched.
            {"down": torch.zeros(3, 2), "up": UP, "mid": torch.zeros(3, 3, 1, 1)},
            "has A [3, 2], a middle [3, 3, 1, 1] and B [2, 1], which do not fit",
        ),
        (
            {"lokr_w1": t([1]), "lokr_t2": torch.zeros(3, 3, 1, 1), "lokr_w2_a": t([1, 2]), "lokr_w2_b": torch.zeros(3, 2)},
            "has a core [3, 3, 1, 1] and factors [1, 2] and [3, 2], which do not fit",
        ),
        (
            {f"hada_{name}": value for half in "12" for name, value in {
                f"t{half}": torch.zeros(3, 3, 1, 1), f"w{half}_a": torch.zeros(3, 2), f"w{half}_b": t([1, 2]),
            }.items()},
            "has a core [3, 3, 1, 1] and factors [3, 2] and [1, 2], which do not fit",
        ),
        ({"hada_w1_a": UP, "hada_w1_b": DOWN}, "has no hada_w2_a and no hada_w2_b"),
        (
            {"hada_w1_a": UP, "hada_w1_b": DOWN, "hada_w2_a": UP, "hada_w2_b": t([1])},
            "has halves [2, 2] and [2, 1], which do not fit",
        ),
        (
            {"hada_w1_a": UP, "hada_w1_b": t([1, 2], [3, 4]), "hada_w2_a": UP, "hada_w2_b": DOWN},
            "has factors [2, 1] and [2, 2], which do not fit",
        ),
        ({"lokr_w1": UP}, "has no lokr_w2_a and no lokr_w2_b"),
        (
            {"lokr_w1": UP, "lokr_w2": t([1, 2, 3])},
            "has lokr_w1 [2, 1] and lokr_w2 [1, 3], which do not make the model's weight [2, 2]",
        ),
        ({"diff": t([1, 2, 3])}, "has diff [1, 3], which do not make the model's weight [2, 2]"),
        ({"down": torch.zeros(0, 2), "up": torch.zeros(2, 0), "alpha": torch.tensor(1.0)}, "has down [0, 2] and up [2, 0]"),
        ({"diff": t([1, 2], [3, 4]), "dora_scale": torch.ones(3, 1)}, "has 3 lengths, which the model's weight [2, 2] has not"),
    ],
)  # fmt: skip
def test_pieces_that_make_no_weight_say_how(pieces, told):
    with pytest.raises(UnfitError) as caught:
        weight(pieces, BEFORE)
    assert str(caught.value).startswith(told)
