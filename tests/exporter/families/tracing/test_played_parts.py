"""Parts that let the pipeline's own code run export with an open batch and open sizes."""

from pathlib import Path

import numpy as np
import torch

from exporter.onnx.capture import traced
from tests.exporter.families.test_traced import RECIPE, family
from tools.coverage.models import MADE


@torch.no_grad()
def test_a_guided_step_is_open_in_batch_and_size(tmp_path: Path):
    MADE["auraflow"]().save_pretrained(tmp_path)
    text = RECIPE.replace("height: [32, 32, 32]", "height: [32, 32, 64]").replace("batch: [1, 1, 2]", "batch: [1, 1, 4]")
    part = family(tmp_path, text=text).part("transformer", "fp32")
    program = traced(part).module()
    random = np.random.default_rng(0)
    for sizes in ({"batch": 3, "latent_height": 24, "latent_width": 16}, {"batch": 1, "latent_height": 16, "latent_width": 24}):
        given = []
        for port in part.signature.inputs:
            shape = part.signature.shape(port, sizes)
            array = np.ones(shape, np.int64) if port.dtype == "int64" else random.standard_normal(shape).astype(np.float32)
            given.append(torch.from_numpy(array))
        torch.testing.assert_close(program(*given), part.module(*given), rtol=1e-4, atol=1e-4)
        assert given[0].shape == part.module(*given).shape
