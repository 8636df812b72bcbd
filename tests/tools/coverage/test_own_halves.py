"""What half precision costs diffusers itself."""

import torch

from tools.coverage import own_halves
from tools.coverage.models import MADE


def test_diffusers_own_flux_rounds_its_times():
    found = own_halves.lost(MADE["flux"], "flux")
    assert found.keys() == {"4", "1"}
    assert all(40 < each < 55 for each in found.values()), "a bundle, which does not, is at 60 and more"


def test_noise_in_halves_is_the_one_in_float32_rounded():
    def drawn(dtype):
        return torch.randn((6, 6), generator=torch.Generator().manual_seed(7), dtype=dtype)

    with own_halves._rounded_noise():
        single, half = drawn(None), drawn(torch.float16)
    assert half.dtype == torch.float16
    assert torch.equal(single.half(), half)
    assert not torch.equal(drawn(torch.float16), half)
