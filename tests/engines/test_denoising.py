"""What the network is given: guidance of single steps, one branch where that is enough, and deep features that are kept."""

import numpy as np
import pytest

from engines.denoising import BoundDenoiser
from engines.errors import UnsupportedError
from tests.engines import small

LATENT = np.zeros((2, 4, 2, 2), np.float32)
STATES = np.arange(4, dtype=np.float32).reshape(2, 2, 1)


def bound(calls, *, scale=5.0, changes=None):
    """A denoiser whose deep features count its whole calls, one branch after the other."""
    made = small.draft(**(small.caching() if changes is None else changes))

    def run(name, given):
        calls.append((name, given))
        whole = sum(each == "unet" for each, _ in calls)
        branches = given["prompt_embeds"].shape[1]
        deep = np.arange(branches, dtype=np.float32)[::-1].reshape(1, -1, 1, 1, 1) + 10 * whole
        return {"model_output": given["latent"], "deep_feature": np.broadcast_to(deep, (2, branches, 3, 2, 2)).copy()}

    return BoundDenoiser(run, made, {"prompt_embeds": STATES, "other": STATES}, made.guidance.fed(scale))


def branches(calls):
    return [given["prompt_embeds"].shape[1] for _, given in calls]


def test_a_share_of_the_guidance_moves_the_scale_towards_where_it_is_off():
    calls = []
    denoise = bound(calls)
    for share in (None, 1.0, 0.5, 0.0, 2.0):
        denoise(LATENT, 9.0, guided=share)
    assert [given["guidance_scale"].tolist() for _, given in calls] == [[5, 5], [5, 5], [3, 3], [1, 1], [9, 9]]
    assert branches(calls) == [2, 2, 2, 1, 2]
    assert calls[3][1]["prompt_embeds"].tolist() == [[[1]], [[3]]]
    assert set(calls[0][1]) == {"latent", "timestep", "guidance_scale", "prompt_embeds"}


def test_items_of_a_batch_have_shares_of_their_own_and_share_the_branches():
    calls = []
    bound(calls)(LATENT, np.array([9.0, 1.0], np.float32), np.array([1, 1]), guided=np.array([0.0, 1.0], np.float32))
    assert calls[0][1]["guidance_scale"].tolist() == [1, 5]
    assert calls[0][1]["prompt_embeds"].tolist() == [[[2], [3]]] * 2


@pytest.mark.parametrize(("changes", "scale", "count"), [(None, 1.0, 1), ({}, 1.0, 2), (None, 1.5, 2)])
def test_a_request_without_guidance_takes_one_branch_where_the_network_can(changes, scale, count):
    calls = []
    bound(calls, changes=changes, scale=scale)(LATENT, 9.0)
    assert branches(calls) == [count]


def test_what_is_given_again_is_the_same_array_so_that_a_device_may_keep_it():
    calls = []
    denoise = bound(calls)
    for share in (0.0, 1.0, 0.0, 1.0):
        denoise(LATENT, 9.0, guided=share)
    given = [each["prompt_embeds"] for _, each in calls]
    assert given[0] is given[2]
    assert given[1] is given[3]
    assert not given[0].flags.writeable


def test_shallow_calls_take_what_the_last_whole_one_left():
    calls = []
    denoise = bound(calls)
    for shallow in (False, True, True, False, True):
        denoise(LATENT, 9.0, shallow=shallow)
    assert [name for name, _ in calls] == ["unet", "unet_shallow", "unet_shallow", "unet", "unet_shallow"]
    kept = [given["deep_feature"] for name, given in calls if name == "unet_shallow"]
    assert [array[0, :, 0, 0, 0].tolist() for array in kept] == [[11, 10], [11, 10], [21, 20]]
    assert kept[0] is kept[1]
    assert not kept[0].flags.writeable


def test_a_shallow_call_without_guidance_takes_the_last_branch_of_both():
    calls = []
    denoise = bound(calls)
    denoise(LATENT, 9.0)
    for _ in range(2):
        denoise(LATENT, 9.0, guided=0.0, shallow=True)
    first, again = (given["deep_feature"] for _, given in calls[1:])
    assert first.shape == (2, 1, 3, 2, 2)
    assert first[0, 0, 0, 0, 0] == 10
    assert first is again


@pytest.mark.parametrize("changes", [None, {}])
def test_a_shallow_call_needs_a_whole_one_before_it_and_a_part(changes):
    with pytest.raises(UnsupportedError, match="asks for shallow steps"):
        bound([], changes=changes)(LATENT, 9.0, shallow=True)
