"""What was made of pictures alone is told apart from what was made of the step, and from constants."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engines.errors import UnsupportedError
from exporter.families.tracing.following.origins import DRAW, STEP, Origins, Weights, drawn_of, marked, origins, owners, pictured


def test_marks_follow_arithmetic_views_and_lists():
    picture, latent = marked(torch.ones(1, 3, 4, 4), "image"), marked(torch.ones(1, 3, 4, 4), STEP)
    with Origins():
        made = torch.cat([picture[:, :1] * 2, torch.zeros(1, 1, 4, 4)], dim=1)
        mixed = made.sum() + latent
        apart = torch.zeros(2) + 1
    assert (origins(made), pictured(made)) == ({"image"}, True)
    assert (origins(mixed), pictured(mixed)) == ({"image", STEP}, False)
    assert (origins(apart), pictured(apart)) == (frozenset(), False)


def test_where_the_sides_meet_the_pictures_is_replaced_and_the_same_tensor_has_the_same_number():
    picture, latent, asked = marked(torch.ones(2), "image"), marked(torch.ones(2), STEP), []

    def crossing(number, tensor):
        asked.append((number, tensor.tolist()))
        return torch.full((2,), 10.0)

    with Origins(crossing):
        one, other = picture + 1, picture * 5
        assert (latent + one).tolist() == [11, 11]
        assert torch.cat([other, latent, one]).tolist() == [10, 10, 1, 1, 10, 10]
    assert asked == [(0, [2, 2]), (1, [5, 5]), (0, [2, 2])]


@pytest.mark.parametrize("real", ["pictures", "step"])
def test_the_other_side_has_shapes_alone(real):
    picture, latent = marked(torch.ones(1, 3, 4, 4), "image"), marked(torch.ones(1, 8, 4, 4), STEP)
    hint, first = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    (hint if real == "step" else first).to("meta")  # whose weights are not here
    with Origins(lambda _, tensor: torch.zeros(tensor.shape), real), torch.no_grad():
        made, denoised = hint(picture.to(torch.device("cpu"))), first(latent)
        assert made.device.type == denoised.device.type == "cpu"  # as the pipeline sees it
        mixed = denoised + made
    assert (made.is_meta, denoised.is_meta, mixed.is_meta) == (real == "step", real == "pictures", real == "pictures")
    assert mixed.shape == (1, 8, 4, 4)


def test_components_whose_weights_the_pictures_meet_are_noted():
    hint, first = nn.Linear(2, 2), nn.Linear(2, 2)
    hint.bias = first.bias  # lent
    pipeline = SimpleNamespace(components={"unet": first, "controlnet": hint, "tokenizer": None})
    for networks, used in (([hint], ["controlnet", "unet"]), ([first], ["unet", "controlnet"])):
        watch = Origins(owners=owners(pipeline))
        with watch:
            nn.Linear(2, 2)(marked(torch.ones(1, 2), STEP))
            for network in networks:
                network(marked(torch.ones(1, 2), "image"))
        assert watch.used == used


def test_what_is_made_of_the_other_side_s_shapes_is_real_and_its_numbers_are_none():
    picture, latent = marked(torch.ones(2), "image"), marked(torch.ones(2, device="meta"), STEP)
    with Origins(real="pictures"):
        assert torch.zeros(2, device=torch.device("meta")).device.type == "cpu"
        assert math.isnan(latent[0].item())
        assert picture[0].item() == 1.0
        with pytest.raises(RuntimeError, match="meta"):
            (latent > 0)[0].item()
    with Origins():
        assert torch.zeros(2, device=torch.device("meta")).is_meta


def test_what_would_change_a_picture_in_place_by_the_step_is_refused():
    with Origins(), pytest.raises(UnsupportedError, match="mul_ changes in place what was made of pictures"):
        marked(torch.ones(2), "image").mul_(marked(torch.ones(2), STEP))


def test_weights_that_are_not_loaded_stay_so_where_one_side_alone_is_computed():
    """As of a VAE whose statistics a pipeline moves to where its encoded picture is."""
    absent = torch.ones(2, device="meta")
    with Origins(real="step"):
        moved = absent.to(torch.device("cpu"), torch.float64)
        kept = torch.ones(2).to(torch.device("cpu"))
    assert (moved.device.type, moved.dtype) == ("meta", torch.float64)
    assert kept.device.type == "cpu"


def test_a_latent_is_made_of_one_noise_and_nothing_else():
    assert drawn_of(marked(torch.ones(1), f"{DRAW}1"), 2, "Some") == 1
    with pytest.raises(UnsupportedError, match=r"Some draws 2 noises before its first step, and its latent is made of 0 of them"):
        drawn_of([], 2, "Some")
    with pytest.raises(UnsupportedError, match=r"its latent is made of image too; one is fed"):
        drawn_of(marked(torch.ones(1), f"{DRAW}0", "image"), 2, "Some")


def test_weights_with_which_something_is_computed_tell_their_component():
    network, lent, seen = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), []
    owned = {id(network.weight): ("a",), id(lent.weight): ("b", "c")}
    with Weights(owned, seen.append):
        _ = network.weight.shape, network.weight.dtype, network.weight.is_floating_point(), network.weight.numel()
        assert seen == [], "what a pipeline asks for a network's number format"
        lent.weight + 1.0
        assert seen == []
        torch.ones(2) * network.weight
    assert seen == ["a"]


def test_what_gives_a_number_format_alone_does_not_cross():
    """As a time's embedding that is made of the type of a hint: in half precision no such cast is done, and it had a number."""
    picture, time = marked(torch.ones(2, dtype=torch.float16), "image"), marked(torch.ones(3), STEP)
    with Origins(lambda *_: pytest.fail("crosses")):
        made, other, known = time.type_as(picture), time.to(picture), picture.type_as(time)
    assert made.dtype == other.dtype == torch.float16
    assert origins(made) == origins(other) == {STEP}
    assert (known.dtype, origins(known)) == (torch.float32, {"image"})


def test_a_number_format_of_what_has_a_shape_alone_gives_no_more():
    picture, time = marked(torch.ones(2, device="meta", dtype=torch.float16), "image"), marked(torch.ones(3), STEP)
    with Origins(real="step"):
        made = time.type_as(picture)
    assert (made.device.type, made.dtype) == ("cpu", torch.float16)
