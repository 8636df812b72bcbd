"""The run time's noise beside torch's own."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.images.torch_noise import TorchNoise

#: As far as torch's own kernels are apart, that of AVX2 and that of processors without it (ATEN_CPU_CAPABILITY=default).
NEAR = 4e-6


@given(seed=st.integers(0, 2**63 - 1), counts=st.lists(st.integers(1, 70), min_size=1, max_size=6))
def test_any_draws_after_each_other(seed, counts):
    torchs, ours = torch.Generator().manual_seed(seed), TorchNoise(seed)
    for count in counts:
        wanted = torch.randn((count,), generator=torchs).numpy()
        np.testing.assert_allclose(ours.standard_normal((count,)), wanted, atol=NEAR)


def test_a_latent_of_sdxl():
    wanted = torch.randn((1, 4, 128, 128), generator=torch.Generator().manual_seed(2**31 + 5)).numpy()
    np.testing.assert_allclose(TorchNoise(2**31 + 5).standard_normal((1, 4, 128, 128)), wanted, atol=NEAR)
